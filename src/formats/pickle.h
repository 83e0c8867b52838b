// The pickles of torch.save, read without executing anything: values in an arena of nodes. See torch_file.h.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "tensor/dtype.h"

namespace sparsam {

// What a pickle may name.
enum class PickleName : u8 { ordered_dict, rebuild_tensor, rebuild_parameter, size, storage };

struct PickleNode {
  enum class Kind : u8 { none, boolean, integer, real, text, tuple, list, dict, name, storage, tensor };
  Kind kind = Kind::none;
  PickleName name = {};         // of a name
  DType dtype = {};             // of a storage and its name
  i64 number = 0;               // of a boolean and an integer; elements of a storage; first element of a tensor
  std::string_view text = {};   // of a text; key of a storage
  std::vector<u32> items = {};  // of tuple and list; dict: key, value, key, value; tensor: storage, shape, strides
};
std::string_view name_of(PickleNode::Kind kind);

struct Pickle {
  std::vector<PickleNode> nodes;
  u32 root = 0;

  const PickleNode& operator[](u32 node) const { return nodes[node]; }
};

// Interprets the instructions of protocols 2 to 5 that torch.save emits for dictionaries of tensors. The arguments of a
// tensor are checked for their types only. Memory is linear in the pickle's length; lists and dictionaries may hold
// themselves, so that a walk over the result must expect cycles. Errors name the byte and the instruction or name.
Pickle read_pickle(std::span<const std::byte> bytes, const std::string& place);

}  // namespace sparsam
