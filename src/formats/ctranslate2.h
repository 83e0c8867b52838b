// The model.bin of CTranslate2, binary versions 1 to 6: little endian, no alignment. A text is u16 bytes that end with
// a zero, which the u16 counts.
//   u32 version     from version 2: text specification ("TransformerBase"), u32 its revision
//   u32 variables   each: text name, u8 axes, u32 for each axis, then the number format and the data:
//                   from version 4: u8 format, u32 bytes; before: u8 bytes of an element, u32 elements
//   from version 3: u32 aliases   each: text name, text name of the variable that it also stands for
// Source: python/ctranslate2/specs/model_spec.py and src/models/model.cc of OpenNMT/CTranslate2.
#pragma once

#include <map>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"

namespace sparsam {

// A file that stays mapped as long as this lives. Everything is checked when it is opened; errors name the file, the
// place, what was found and what was expected.
class Ctranslate2File {
 public:
  static Ctranslate2File open(const fs::path& path);
  static bool is_model(std::span<const std::byte> file);  // begins as such a file does

  // Variables in the order of the file, then aliases, of the same bytes; an alias of a quantised weight brings one of
  // its scale. The bytes lie unaligned. Signed integers of 8 and 16 bits stand as u8 and u16 of the same bits.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const TensorEntry* find(std::string_view name) const;  // null when there is none

  // The numbers of a tensor. A quantised weight (rows, ...) is divided by the scale, or the scales of its rows, in the
  // tensor NAME_scale; by 1000 where an i16 weight has none, as in version 1. Errors: no such tensor, a scale that is
  // missing or does not fit.
  std::vector<float> floats(std::string_view name) const;

  u32 version() const { return version_; }
  const std::string& specification() const { return specification_; }  // empty in version 1
  u32 revision() const { return revision_; }                           // of the specification; 1 in version 1
  const fs::path& path() const { return file_.path(); }

 private:
  explicit Ctranslate2File(const fs::path& path) : file_(path) {}
  void add(TensorEntry entry);
  void add_alias(const std::string& name, const TensorEntry& of);
  std::vector<float> scales_of(const TensorEntry& tensor) const;

  MappedFile file_;
  u32 version_ = 0, revision_ = 1;
  std::string specification_;
  std::vector<TensorEntry> tensors_;
  std::map<std::string, size_t, std::less<>> places_;  // name -> index in tensors_
};

}  // namespace sparsam
