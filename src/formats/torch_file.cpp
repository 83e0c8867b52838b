#include "formats/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"
#include "formats/json.h"
#include "formats/pickle.h"
#include "formats/zip.h"

namespace sparsam {

namespace {

using Kind = PickleNode::Kind;

constexpr u64 most_pickle_bytes = u64{1} << 24;
constexpr int most_depth = 8;
constexpr size_t most_axes = 64;
constexpr std::string_view pickle_name = "/data.pkl";

// The members of one archive and the tensors that its pickle describes.
class Archive {
 public:
  Archive(std::span<const std::byte> file, std::string place) : place_(std::move(place)) {
    for (ZipMember& member : read_zip(file, place_)) {
      const std::string name = member.name;
      members_.emplace(name, std::move(member));
    }
    for (const auto& [name, member] : members_) {
      if (!name.ends_with(pickle_name)) continue;
      if (!prefix_.empty()) fail("{}: two pickles, {}data.pkl and {}", place_, prefix_, printable(name));
      prefix_ = name.substr(0, name.size() - pickle_name.size() + 1);
    }
    if (prefix_.empty()) fail("{}: no member data.pkl; expected what torch.save writes", place_);
    if (members_.contains(prefix_ + "constants.pkl"))
      fail("{}: a TorchScript program; expected a dictionary of tensors", place_);
    const auto order = members_.find(prefix_ + "byteorder");
    if (order != members_.end() && text_of(order->second) != "little")
      fail("{}: its byte order is {}, expected little", place_, printable(text_of(order->second)));
  }

  std::vector<TensorEntry> tensors(std::deque<std::vector<std::byte>>& copies, u64 copied_most) {
    const ZipMember& member = members_.at(prefix_ + "data.pkl");
    if (member.bytes.size() > most_pickle_bytes)
      fail("{}: the pickle has {} bytes, expected at most {}", place_, member.bytes.size(), most_pickle_bytes);
    check_crc(member, place_);
    pickle_ = read_pickle(member.bytes, place_ + ": data.pkl");
    copies_ = &copies, copied_left_ = copied_most;
    if (pickle_[pickle_.root].kind != Kind::dict)
      fail("{}: holds {}, expected a dictionary of tensors", place_, name_of(pickle_[pickle_.root].kind));
    collect(pickle_.root, "", 0);
    return std::move(tensors_);
  }

 private:
  static std::string_view text_of(const ZipMember& member) {
    return {reinterpret_cast<const char*>(member.bytes.data()), member.bytes.size()};
  }

  void collect(u32 dict, const std::string& prefix, int depth) {
    // Each dictionary stands in one place: a chain of shared ones would unfold to exponentially many names.
    if (!seen_.insert(dict).second || depth > most_depth)
      fail("{}: the dictionary '{}' stands in two places, holds itself or lies more than {} levels deep", place_,
           printable(prefix), most_depth);
    const std::vector<u32>& items = pickle_[dict].items;
    for (size_t i = 0; i < items.size(); i += 2) {
      const PickleNode &key = pickle_[items[i]], &value = pickle_[items[i + 1]];
      if (key.kind != Kind::text)
        fail("{}: dictionary '{}': {} as a key, expected a text", place_, printable(prefix), name_of(key.kind));
      const std::string name = prefix + std::string(key.text);
      if (value.kind == Kind::dict)
        collect(items[i + 1], name + ".", depth + 1);
      else if (value.kind == Kind::tensor)
        tensors_.push_back(tensor(name, value));
      else
        fail("{}: '{}' is {}, expected tensors only", place_, printable(name), name_of(value.kind));
    }
  }

  std::vector<i64> integers(u32 tuple) const {
    std::vector<i64> values;
    for (const u32 item : pickle_[tuple].items) values.push_back(pickle_[item].number);
    return values;
  }

  std::span<const std::byte> storage_bytes(const PickleNode& storage, const std::string& where) const {
    const auto member = members_.find(fmt::format("{}data/{}", prefix_, storage.text));
    if (member == members_.end()) fail("{}: its storage '{}' is missing", where, printable(storage.text));
    const auto bytes = member->second.bytes;
    const auto size = static_cast<u64>(size_of(storage.dtype));
    if (bytes.size() % size != 0 || static_cast<i64>(bytes.size() / size) != storage.number)
      fail("{}: its storage '{}' has {} bytes, expected {} elements of {}", where, printable(storage.text),
           bytes.size(), storage.number, name_of(storage.dtype));
    return bytes;
  }

  TensorEntry tensor(const std::string& name, const PickleNode& node) {
    const std::string where = fmt::format("{}: tensor '{}'", place_, printable(name));
    const PickleNode& storage = pickle_[node.items[0]];
    TensorEntry entry{.name = name, .dtype = storage.dtype, .shape = integers(node.items[1]), .bytes = {}};
    const std::vector<i64> strides = integers(node.items[2]);
    const auto bytes = storage_bytes(storage, where);
    const i64 first = node.number;
    if (entry.shape.size() != strides.size() || strides.size() > most_axes)
      fail("{}: shape {} with {} strides, expected as many, and at most {}", where, entry.shape_text(), strides.size(),
           most_axes);
    // The last element's place; an overflow anywhere means that it lies outside.
    i64 last = first, elements = 1, contiguous = 1;
    bool empty = false, fits = first >= 0, in_order = true;
    for (size_t i = strides.size(); i-- > 0;) {
      const i64 n = entry.shape[i], stride = strides[i];
      i64 reach = 0;
      fits = fits && n >= 0 && stride >= 0;
      if (n == 0) empty = true;
      if (!fits || n <= 1) continue;
      in_order = in_order && stride == contiguous;
      fits = !__builtin_mul_overflow(n - 1, stride, &reach) && !__builtin_add_overflow(last, reach, &last) &&
             !__builtin_mul_overflow(elements, n, &elements);
      contiguous = elements;
    }
    fits = fits && (empty ? first <= storage.number : last < storage.number && elements <= storage.number);
    if (!fits)
      fail("{}: shape {} with strides ({}) from element {} leaves its storage of {} elements", where,
           entry.shape_text(), fmt::join(strides, ", "), first, storage.number);
    if (empty) return entry;
    const auto size = static_cast<size_t>(size_of(entry.dtype));
    entry.bytes = bytes.subspan(static_cast<size_t>(first) * size);
    if (in_order) entry.bytes = entry.bytes.first(static_cast<size_t>(elements) * size);
    if (!in_order || reinterpret_cast<std::uintptr_t>(entry.bytes.data()) % size != 0)
      entry.bytes = copy(entry, strides, static_cast<size_t>(elements), where);
    return entry;
  }

  // The elements in row-major order, from where the strides say that they lie.
  std::span<const std::byte> copy(const TensorEntry& entry, const std::vector<i64>& strides, size_t elements,
                                  const std::string& where) {
    const auto size = static_cast<size_t>(size_of(entry.dtype));
    if (elements * size > copied_left_)
      fail("{}: the copies of transposed or unaligned tensors take more bytes than the file has", where);
    copied_left_ -= elements * size;
    std::vector<std::byte>& out = copies_->emplace_back(elements * size);
    std::vector<i64> index(strides.size(), 0);
    i64 from = 0;
    for (size_t i = 0; i < elements; ++i) {
      std::copy_n(entry.bytes.begin() + from * static_cast<i64>(size), size, out.begin() + static_cast<i64>(i * size));
      for (size_t axis = strides.size(); axis-- > 0;) {
        from += strides[axis];
        if (++index[axis] < entry.shape[axis]) break;
        from -= strides[axis] * std::exchange(index[axis], 0);
      }
    }
    return out;
  }

  std::string place_, prefix_;
  std::map<std::string, ZipMember, std::less<>> members_;
  Pickle pickle_;
  std::set<u32> seen_;
  std::vector<TensorEntry> tensors_;
  std::deque<std::vector<std::byte>>* copies_ = nullptr;
  u64 copied_left_ = 0;
};

}  // namespace

bool TorchFile::is_archive(std::span<const std::byte> file) {
  constexpr std::string_view begin = "PK\x03\x04";
  return file.size() >= begin.size() &&
         std::string_view(reinterpret_cast<const char*>(file.data()), begin.size()) == begin;
}

TorchFile TorchFile::open(const fs::path& path) {
  TorchFile file(path);
  const std::span<const std::byte> bytes = file.file_.bytes();
  if (!bytes.empty() && bytes[0] == std::byte{0x80})
    fail("{}: a pickle without an archive, as torch wrote before 1.6; expected its ZIP archive", path.string());
  if (!is_archive(bytes)) fail("{}: expected the ZIP archive that torch.save writes", path.string());
  file.tensors_ = Archive(bytes, path.string()).tensors(file.copies_, bytes.size());
  for (size_t i = 0; i < file.tensors_.size(); ++i)
    if (!file.places_.emplace(file.tensors_[i].name, i).second)
      fail("{}: the tensor '{}' stands twice", path.string(), printable(file.tensors_[i].name));
  return file;
}

const TensorEntry* TorchFile::find(std::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace sparsam
