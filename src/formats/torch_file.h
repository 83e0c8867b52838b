// Tensors in the files that torch.save writes (pytorch_model.bin, .pt, .pth): a ZIP archive with one member that a
// pickle describes and one member a storage. A pickle is a program; this reads it with an interpreter of its own that
// knows the few instructions and names which tensors need, calls nothing, and refuses all others by name.
// Source: torch/serialization.py (the archive, persistent ids), torch/_utils.py (how tensors are rebuilt), Python's
// pickletools (the instructions).
#pragma once

#include <deque>
#include <map>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"

namespace sparsam {

// Tensors read from a file that stays mapped as long as this lives. The root must be a dictionary of tensors, or of
// such dictionaries: {"module": {"w": ...}} holds the tensor "module.w". Everything is checked when the file is opened;
// errors name the file, the place in the pickle, what was found and what was expected.
class TorchFile {
 public:
  static TorchFile open(const fs::path& path);
  static bool is_archive(std::span<const std::byte> file);  // begins as a ZIP archive does

  // In the order of the dictionary. Tied weights are tensors of the same bytes. What lies transposed or unaligned in
  // the file is copied; all copies together take no more bytes than the file.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const TensorEntry* find(std::string_view name) const;  // null when there is none
  const fs::path& path() const { return file_.path(); }

 private:
  explicit TorchFile(const fs::path& path) : file_(path) {}

  MappedFile file_;
  std::deque<std::vector<std::byte>> copies_;
  std::vector<TensorEntry> tensors_;
  std::map<std::string, size_t, std::less<>> places_;  // name -> index in tensors_
};

}  // namespace sparsam
