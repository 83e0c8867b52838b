// Safetensors: named tensors in one file, or in shards that model.safetensors.index.json names.
//   bytes 0..7         n, the length of the header, u64 little endian
//   bytes 8..8+n       JSON {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
//                      "__metadata__": {"key": "text"}}, perhaps followed by spaces
//   the rest           the tensors, row-major, little endian, without holes; offsets count from here
// Source: the format section of the safetensors README (huggingface/safetensors).
#pragma once

#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "tensor/dtype.h"

namespace sparsam {

struct TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<i64> shape;            // empty: a scalar; a dimension may be 0
  std::span<const std::byte> bytes;  // row-major; product of the shape times size_of(dtype)

  i64 elements() const;            // product of the shape
  std::string shape_text() const;  // "(2, 3)"
};

// Tensors read from files that stay mapped as long as this lives. Everything in a file is checked when it is opened:
// the header against the file's length, every range for order, holes, overlap and the size that its shape implies,
// names for being unique over all shards. Errors name the file, the tensor, what was found and what was expected.
class SafetensorsFile {
 public:
  // `path`: a .safetensors file, an index (.json), or a directory that holds model.safetensors or
  // model.safetensors.index.json.
  static SafetensorsFile open(const fs::path& path);

  // In the order of the data; shards in the order of their names. A tensor's bytes are aligned to its number format.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const TensorEntry* find(std::string_view name) const;  // null when there is none
  const TensorEntry& at(std::string_view name) const;    // Error with close matches when there is none
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // "__metadata__", of all shards
  const fs::path& path() const { return path_; }                                    // what was opened, for messages
  // The tensor has been copied: its pages leave memory (and come back when they are read).
  void release(const TensorEntry& tensor) const;

 private:
  void read_shard(const fs::path& path);
  void read_index(const fs::path& path);
  void index_names();

  fs::path path_;
  std::deque<MappedFile> files_;
  std::deque<std::vector<std::byte>> aligned_;  // copies of tensors that lie unaligned in their file
  std::vector<TensorEntry> tensors_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, size_t, std::less<>> places_;  // name -> index in tensors_
};

// Writes one file atomically, tensors in the order given, the data beginning at a multiple of 64 bytes; a metadata
// entry "format": "pt" is added where there is none, since other readers ask for it. Errors: the disk, a name or
// metadata that is not UTF-8, a name that stands twice.
void write_safetensors(const fs::path& path, std::span<const TensorEntry> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace sparsam
