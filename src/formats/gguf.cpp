#include "formats/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <utility>

#include "base/error.h"

namespace sparsam {

static_assert(std::endian::native == std::endian::little, "GGUF stores little endian numbers");

namespace {

constexpr std::string_view magic = "GGUF", alignment_key = "general.alignment";
constexpr u64 most_key_bytes = 65535, most_strings = u64{1} << 24, default_alignment = 32, most_alignment = 65536;
constexpr u32 most_axes = 4, written_version = 3;
constexpr size_t most_written_name = 63;  // GGML_MAX_NAME of llama.cpp, less the terminating zero

// The number formats. Those that sparsam knows too have the same name there; the others are refused by it.
struct TypeName {
  u32 type;
  const char* name;
};
constexpr TypeName type_names[] = {
    {0, "f32"},      {1, "f16"},     {2, "q4_0"},     {3, "q4_1"},   {6, "q5_0"},    {7, "q5_1"},   {8, "q8_0"},
    {9, "q8_1"},     {10, "q2_k"},   {11, "q3_k"},    {12, "q4_k"},  {13, "q5_k"},   {14, "q6_k"},  {15, "q8_k"},
    {16, "iq2_xxs"}, {17, "iq2_xs"}, {18, "iq3_xxs"}, {19, "iq1_s"}, {20, "iq4_nl"}, {21, "iq3_s"}, {22, "iq2_s"},
    {23, "iq4_xs"},  {24, "i8"},     {25, "i16"},     {26, "i32"},   {27, "i64"},    {28, "f64"},   {29, "iq1_m"},
    {30, "bf16"},    {34, "tq1_0"},  {35, "tq2_0"},   {39, "mxfp4"}, {40, "nvfp4"},  {41, "q1_0"},  {42, "q2_0"}};

DType tensor_type(u32 type, const std::string& where) {
  for (const auto& [known, name] : type_names) {
    if (known != type) continue;
    if (const auto dtype = dtype_from_name(name)) return *dtype;
    fail("{}: stored as {}, a number format of GGUF that is not supported", where, name);
  }
  fail("{}: number format {}, which GGUF does not have", where, type);
}

// Calls f with a value of the type that the format numbers so.
template <class F>
auto with_type(u32 type, const std::string& where, F&& f) {
  switch (type) {
    case 0:
      return f(u8{});
    case 1:
      return f(i8{});
    case 2:
      return f(u16{});
    case 3:
      return f(i16{});
    case 4:
      return f(u32{});
    case 5:
      return f(i32{});
    case 6:
      return f(float{});
    case 7:
      return f(bool{});
    case 8:
      return f(std::string{});
    case 10:
      return f(u64{});
    case 11:
      return f(i64{});
    case 12:
      return f(double{});
    case 9:
      fail("{}: an array of arrays, expected an array of plain values", where);
    default:
      fail("{}: value type {}, expected 0 to 12", where, type);
  }
}
constexpr u32 array_type = 9;

// Walks the file's header; nothing is read or allocated beyond what is left of it.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string place) : bytes_(bytes), place_(std::move(place)) {}

  u64 position() const { return position_; }
  // Error unless `count` items of at least `size` bytes are left. `where` says of what.
  void require(u64 count, u64 size, const std::string& where) const {
    const u64 left = bytes_.size() - position_;
    if (count > left / size)
      fail("{}: {}: {} at byte {} take at least {} bytes each, but {} are left; the file is cut or damaged", place_,
           where, count, position_, size, left);
  }
  template <class T>
  T read(const std::string& where) {
    if constexpr (std::same_as<T, std::string>) {
      return std::string(text(where, bytes_.size()));
    } else if constexpr (std::same_as<T, bool>) {
      const u8 value = read<u8>(where);
      if (value > 1) fail("{}: {}: the truth value {}, expected 0 or 1", place_, where, value);
      return value == 1;
    } else {
      require(1, sizeof(T), where);
      T value;
      std::memcpy(&value, bytes_.data() + position_, sizeof value);
      position_ += sizeof value;
      return value;
    }
  }
  std::string_view text(const std::string& where, u64 most) {
    const u64 length = read<u64>(where);
    if (length > most) fail("{}: {}: a text of {} bytes, expected at most {}", place_, where, length, most);
    require(length, 1, where);
    const auto* begin = reinterpret_cast<const char*>(bytes_.data() + position_);
    position_ += length;
    return {begin, static_cast<size_t>(length)};
  }
  GgufValue value(const std::string& where) {
    const u32 type = read<u32>(where);
    const std::string full = fmt::format("{}: {}", place_, where);
    if (type != array_type)
      return with_type(type, full, [&]<class T>(T) { return GgufValue(std::in_place_type<T>, read<T>(where)); });
    const u32 item = read<u32>(where);
    return with_type(item, full, [&]<class T>(T) { return GgufValue(GgufArray{items<T>(where)}); });
  }
  const std::string& place() const { return place_; }

 private:
  template <class T>
  std::vector<T> items(const std::string& where) {
    const u64 count = read<u64>(where);
    constexpr bool texts = std::same_as<T, std::string>;
    require(count, texts ? sizeof(u64) : sizeof(T), where);
    if (texts && count > most_strings)
      fail("{}: {}: {} texts, expected at most {}", place_, where, count, most_strings);
    std::vector<T> values;
    if constexpr (texts || std::same_as<T, bool>) {
      values.reserve(static_cast<size_t>(count));
      for (u64 i = 0; i < count; ++i) values.push_back(read<T>(where));
    } else if (count > 0) {
      values.resize(static_cast<size_t>(count));
      std::memcpy(values.data(), bytes_.data() + position_, static_cast<size_t>(count) * sizeof(T));
      position_ += count * sizeof(T);
    }
    return values;
  }

  std::span<const std::byte> bytes_;
  std::string place_;
  u64 position_ = 0;
};

void read_version(Reader& reader, std::span<const std::byte> file) {
  const std::string_view begin(reinterpret_cast<const char*>(file.data()), std::min(file.size(), magic.size()));
  if (begin != magic)
    fail("{}: begins with '{}', expected '{}'; is this a GGUF file?", reader.place(), printable(begin), magic);
  reader.read<u32>("magic");
  const u32 version = reader.read<u32>("version");
  if (version == u32{2} << 24 || version == u32{3} << 24)
    fail("{}: stored big endian, expected little endian", reader.place());
  if (version != 2 && version != 3) fail("{}: version {} of GGUF, expected 2 or 3", reader.place(), version);
}

std::string read_key(Reader& reader, u64 index, std::set<std::string, std::less<>>& seen) {
  const std::string where = fmt::format("key {}", index);
  std::string key(reader.text(where, most_key_bytes));
  if (key.empty() || !std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; }))
    fail("{}: {} is '{}', expected printable ASCII characters", reader.place(), where, printable(key));
  if (!seen.insert(key).second) fail("{}: the key '{}' stands twice", reader.place(), key);
  return key;
}

struct Range {
  u64 begin, end;
};

// One tensor, without its bytes; `range` counts from the beginning of the data.
TensorEntry read_entry(Reader& reader, u64 index, Range& range) {
  TensorEntry entry{.name = std::string(reader.text(fmt::format("name of tensor {}", index), most_key_bytes)),
                    .dtype = {},
                    .shape = {},
                    .bytes = {}};
  if (entry.name.empty()) fail("{}: tensor {} has no name", reader.place(), index);
  const std::string what = fmt::format("tensor '{}'", printable(entry.name));
  const std::string where = fmt::format("{}: {}", reader.place(), what);
  const u32 axes = reader.read<u32>(what);
  if (axes < 1 || axes > most_axes) fail("{}: {} axes, expected 1 to {}", where, axes, most_axes);
  for (u32 i = 0; i < axes; ++i) {
    const u64 length = reader.read<u64>(what);
    if (length < 1 || length > u64{std::numeric_limits<i64>::max()})
      fail("{}: axis {} has length {}, expected 1 or more", where, i, static_cast<i64>(length));
    entry.shape.insert(entry.shape.begin(), static_cast<i64>(length));
  }
  entry.dtype = tensor_type(reader.read<u32>(what), where);
  const u64 offset = reader.read<u64>(what);
  const i64 block = block_size(entry.dtype);
  if (entry.shape.back() % block != 0)
    fail("{}: shape {}: rows of {} in blocks of {} numbers, expected a multiple", where, entry.shape_text(),
         name_of(entry.dtype), block);
  i64 bytes = bytes_for(entry.dtype, block);
  bool fits = !__builtin_mul_overflow(bytes, entry.shape.back() / block, &bytes);
  for (size_t i = 0; i + 1 < entry.shape.size(); ++i)
    fits = fits && !__builtin_mul_overflow(bytes, entry.shape[i], &bytes);
  range.begin = offset;
  if (!fits || __builtin_add_overflow(offset, static_cast<u64>(bytes), &range.end))
    fail("{}: shape {} of {} is larger than 63 bits can count", where, entry.shape_text(), name_of(entry.dtype));
  return entry;
}

u64 padded(u64 position, u64 alignment) { return (position + alignment - 1) / alignment * alignment; }

// Tensors must not overlap; what lies between them is left alone, as llama.cpp pads it.
void check_order(std::span<const TensorEntry> tensors, std::span<const Range> ranges, const std::string& place) {
  std::vector<size_t> order(ranges.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ranges[a].begin < ranges[b].begin; });
  for (size_t i = 1; i < order.size(); ++i)
    if (ranges[order[i]].begin < ranges[order[i - 1]].end)
      fail("{}: tensors '{}' and '{}' overlap", place, printable(tensors[order[i - 1]].name),
           printable(tensors[order[i]].name));
}

}  // namespace

GgufFile GgufFile::open(const fs::path& path) {
  GgufFile file(path);
  const auto bytes = file.file_.bytes();
  Reader reader(bytes, path.string());
  read_version(reader, bytes);
  const u64 tensors = reader.read<u64>("number of tensors");
  const u64 entries = reader.read<u64>("number of metadata entries");
  constexpr u64 least_entry_bytes = 8 + 1 + 4 + 1, least_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;
  reader.require(entries, least_entry_bytes, "metadata entries");
  std::set<std::string, std::less<>> keys;
  for (u64 i = 0; i < entries; ++i) {
    std::string key = read_key(reader, i, keys);
    GgufValue value = reader.value(fmt::format("key '{}'", printable(key)));
    file.metadata_.emplace_back(std::move(key), std::move(value));
  }
  const i64 alignment =
      GgufFields(file).or_default<i64>(alignment_key, default_alignment, {.least = 8, .most = most_alignment});
  if (!std::has_single_bit(static_cast<u64>(alignment)))
    fail("{}: {} is {}, expected a power of two", reader.place(), alignment_key, alignment);

  reader.require(tensors, least_tensor_bytes, "tensors");
  std::vector<Range> ranges;
  for (u64 i = 0; i < tensors; ++i) {
    file.tensors_.push_back(read_entry(reader, i, ranges.emplace_back()));
    const std::string& name = file.tensors_.back().name;
    if (!file.places_.emplace(name, i).second)
      fail("{}: the tensor '{}' stands twice", reader.place(), printable(name));
  }
  const u64 begin = padded(reader.position(), static_cast<u64>(alignment));
  const u64 available = bytes.size() > begin ? bytes.size() - begin : 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto [first, last] = ranges[i];
    TensorEntry& entry = file.tensors_[i];
    const std::string where = fmt::format("{}: tensor '{}'", reader.place(), printable(entry.name));
    if (first % static_cast<u64>(alignment) != 0)
      fail("{}: lies at byte {} of the data, expected a multiple of {}", where, first, alignment);
    if (last > available)
      fail("{}: bytes {} to {} of the data, but the file has {}; it is cut or damaged", where, first, last, available);
    entry.bytes = bytes.subspan(static_cast<size_t>(begin + first), static_cast<size_t>(last - first));
  }
  check_order(file.tensors_, ranges, reader.place());
  return file;
}

const TensorEntry* GgufFile::find(std::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &tensors_[found->second];
}

std::optional<u32> gguf_type(DType dtype) {
  for (const auto& [type, name] : type_names)
    if (name == name_of(dtype)) return type;
  return std::nullopt;
}

namespace {

// Collects the header, of which each number, text or array is one put().
struct Header {
  std::string text;

  template <class T>
  void put(const T& value) {
    if constexpr (std::same_as<T, std::string>) {
      put(u64{value.size()});
      text += value;
    } else if constexpr (std::same_as<T, bool>) {
      text += static_cast<char>(value);
    } else {
      text.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  void put(const GgufArray& array) {
    put(static_cast<u32>(array.items.index()));
    std::visit(
        [&]<class Items>(const Items& items) {
          if constexpr (!std::same_as<Items, std::monostate>) {
            put(u64{items.size()});
            for (const auto& item : items) put<typename Items::value_type>(item);
          }
        },
        array.items);
  }
  void put(const GgufValue& value) {
    put(static_cast<u32>(value.index()));
    std::visit([&](const auto& plain) { put(plain); }, value);
  }
};

}  // namespace

void write_gguf(const fs::path& path, const GgufMetadata& metadata, std::span<const TensorEntry> tensors) {
  const std::string place = path.string();
  Header header{std::string(magic)};
  header.put(written_version), header.put(u64{tensors.size()}), header.put(u64{metadata.size()});
  std::set<std::string_view> seen;
  for (const auto& [key, value] : metadata) {
    if (!seen.insert(key).second || key.size() > most_key_bytes || key == alignment_key)
      fail("{}: cannot write the key '{}': it stands twice, is too long or reserved", place, printable(key));
    header.put(key), header.put(value);
  }
  seen.clear();
  u64 offset = 0;
  for (const TensorEntry& entry : tensors) {
    if (!seen.insert(entry.name).second || entry.name.size() > most_written_name)
      fail("{}: cannot write the tensor '{}': its name stands twice or has more than {} bytes", place,
           printable(entry.name), most_written_name);
    const auto type = gguf_type(entry.dtype);
    if (!type)
      fail("{}: cannot write the tensor '{}': GGUF has no number format {}", place, entry.name, name_of(entry.dtype));
    check(bytes_for(entry.dtype, entry.elements()) == static_cast<i64>(entry.bytes.size()),
          "tensor {} of shape {} and dtype {} has {} bytes", entry.name, entry.shape_text(), name_of(entry.dtype),
          entry.bytes.size());
    header.put(entry.name), header.put(static_cast<u32>(entry.shape.size()));
    for (auto n = entry.shape.rbegin(); n != entry.shape.rend(); ++n) header.put(static_cast<u64>(*n));
    header.put(*type), header.put(offset);
    offset = padded(offset + entry.bytes.size(), default_alignment);
  }

  AtomicFile file(path);
  const auto pad = [&] {
    const auto position = static_cast<u64>(file.written());
    file.write(std::string(padded(position, default_alignment) - position, '\0'));
  };
  file.write(header.text);
  for (const TensorEntry& entry : tensors) pad(), file.write(entry.bytes);
  pad();
  file.commit();
}

}  // namespace sparsam
