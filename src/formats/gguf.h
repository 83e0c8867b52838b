// GGUF: metadata and named tensors in one file, as llama.cpp reads and writes it. Little endian.
//   "GGUF", u32 version (2 or 3), u64 tensors, u64 metadata entries
//   each entry    string key, u32 type, value      (string: u64 length and bytes; array: u32 type, u64 count, values)
//   each tensor   string name, u32 axes, u64 lengths (the fastest axis first), u32 number format, u64 offset
//   the data, beginning at a multiple of general.alignment (32 unless said); offsets count from there
// Source: docs/gguf.md of ggml-org/ggml.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"

namespace sparsam {

// The values of metadata. The index of each alternative is its number in the format; arrays of arrays, which llama.cpp
// does not know either, are refused.
struct GgufArray {
  std::variant<std::vector<u8>, std::vector<i8>, std::vector<u16>, std::vector<i16>, std::vector<u32>, std::vector<i32>,
               std::vector<float>, std::vector<bool>, std::vector<std::string>, std::monostate, std::vector<u64>,
               std::vector<i64>, std::vector<double>>
      items;
  bool operator==(const GgufArray&) const = default;
};
using GgufValue = std::variant<u8, i8, u16, i16, u32, i32, float, bool, std::string, GgufArray, u64, i64, double>;
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;  // in the order of the file

// A file that stays mapped as long as this lives. Everything is checked when it is opened: each count and length
// against the bytes that are left, keys and tensor names for being unique, number formats, shapes, and every range for
// alignment, overlap and lying in the file. Errors name the file, the key or tensor, what was found, what was expected.
class GgufFile {
 public:
  static GgufFile open(const fs::path& path);

  const GgufMetadata& metadata() const { return metadata_; }
  // In the order of the file. Shapes are row-major, the slowest axis first: a matrix is (rows, columns).
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const TensorEntry* find(std::string_view name) const;  // null when there is none
  const fs::path& path() const { return file_.path(); }

 private:
  explicit GgufFile(const fs::path& path) : file_(path) {}

  MappedFile file_;
  GgufMetadata metadata_;
  std::vector<TensorEntry> tensors_;
  std::map<std::string, size_t, std::less<>> places_;  // name -> index in tensors_
};

// Metadata read by key, as Fields reads JSON. T: bool, an integer, float, double, std::string, or a std::vector of i64,
// float or std::string. Integers of any width are read as each other where they fit; nothing else is converted.
class GgufFields {
 public:
  explicit GgufFields(const GgufFile& file);  // `file` must outlive this
  explicit GgufFields(GgufFile&&) = delete;

  template <class T>
  T required(std::string_view key, Limits<T> limits = {}) {
    const GgufValue* value = find(key);
    if (!value) fail_missing(key);
    return convert<T>(*value, key, limits);
  }
  template <class T>
  std::optional<T> optional(std::string_view key, Limits<T> limits = {}) {
    const GgufValue* value = find(key);
    if (!value) return std::nullopt;
    return convert<T>(*value, key, limits);
  }
  template <class T>
  T or_default(std::string_view key, std::type_identity_t<T> otherwise, Limits<T> limits = {}) {
    return optional<T>(key, limits).value_or(std::move(otherwise));
  }
  const GgufValue* find(std::string_view key);  // null when absent; counts as known from here on

  void ignore(std::string_view key) { known_.emplace_back(key); }
  void finish(std::string_view prefix) const;  // Error naming the keys with this prefix that were not asked for

  const std::string& where() const { return where_; }
  [[noreturn]] void fail_value(std::string_view key, const GgufValue& found, std::string_view expected) const;

 private:
  [[noreturn]] void fail_missing(std::string_view key) const;
  bool boolean(const GgufValue& value, std::string_view key) const;
  i64 integer(const GgufValue& value, std::string_view key, i64 least, i64 most) const;
  double real(const GgufValue& value, std::string_view key, double least, double most) const;
  std::string string(const GgufValue& value, std::string_view key) const;
  void array(const GgufValue& value, std::string_view key, std::vector<i64>& out) const;
  void array(const GgufValue& value, std::string_view key, std::vector<float>& out) const;
  void array(const GgufValue& value, std::string_view key, std::vector<std::string>& out) const;

  template <class T>
  T convert(const GgufValue& value, std::string_view key, Limits<T> limits) const {
    if constexpr (std::same_as<T, bool>) {
      return boolean(value, key);
    } else if constexpr (std::integral<T>) {
      static_assert(sizeof(T) < sizeof(i64) || std::is_signed_v<T>, "the limits must fit in i64");
      return static_cast<T>(integer(value, key, limits.least, limits.most));
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(real(value, key, limits.least, limits.most));
    } else if constexpr (std::same_as<T, std::string>) {
      return string(value, key);
    } else {
      T items;
      array(value, key, items);
      return items;
    }
  }

  const GgufMetadata& metadata_;
  std::string where_;
  std::vector<std::string> known_;
};

// Number formats as GGUF names and numbers them.
std::optional<u32> gguf_type(DType dtype);

// Writes version 3 atomically, entries and tensors in the order given. Errors: the disk, a number format that GGUF has
// not, a key or name that stands twice or is too long for llama.cpp (63 bytes).
void write_gguf(const fs::path& path, const GgufMetadata& metadata, std::span<const TensorEntry> tensors);

}  // namespace sparsam
