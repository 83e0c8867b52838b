#include "formats/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/pages.h"
#include "formats/json.h"

namespace sparsam {

static_assert(std::endian::native == std::endian::little, "safetensors stores little endian numbers");

namespace {

constexpr u64 most_header_bytes = 100'000'000;  // the limit of the reference implementation
constexpr size_t prefix_bytes = 8, data_alignment = 64;
constexpr const char* metadata_name = "__metadata__";

struct FormatName {
  const char* name;
  DType dtype;
};
// The first name of a number format is the one written. Truth values are bytes 0 and 1.
constexpr FormatName format_names[] = {
    {"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16}, {"F64", DType::f64}, {"U8", DType::u8},
    {"U16", DType::u16}, {"U32", DType::u32}, {"I32", DType::i32},   {"I64", DType::i64}, {"BOOL", DType::u8}};

std::optional<DType> dtype_from_format(std::string_view wanted) {
  for (const auto& [name, dtype] : format_names)
    if (wanted == name) return dtype;
  return std::nullopt;
}

std::string format_name(DType wanted) {
  for (const auto& [name, dtype] : format_names)
    if (dtype == wanted) return name;
  check(false, "the number format {} has no name in safetensors", name_of(wanted));
  return {};
}

// Product of the dimensions times `size`; nothing where 63 bits do not hold it. Zeros are left out of the check's
// product, so that no partial product of the shape can overflow later either.
std::optional<i64> checked_bytes(std::span<const i64> shape, i64 size) {
  i64 product = size;
  bool empty = false;
  for (const i64 n : shape) {
    if (n == 0)
      empty = true;
    else if (__builtin_mul_overflow(product, n, &product))
      return std::nullopt;
  }
  return empty ? 0 : product;
}

struct Range {
  i64 begin, end;
};

// One entry of the header, checked against the length of the data.
TensorEntry parse_entry(const std::string& name, const Json& json, const std::string& place, i64 data_bytes,
                        Range& range) {
  const std::string where = fmt::format("{}: tensor '{}'", place, printable(name));
  Fields fields(json, where);
  TensorEntry entry{.name = name, .dtype = {}, .shape = {}, .bytes = {}};
  const auto dtype = fields.required<std::string>("dtype");
  if (const auto known = dtype_from_format(dtype)) {
    entry.dtype = *known;
  } else {
    std::vector<std::string> names;
    for (const auto& format : format_names) names.emplace_back(format.name);
    fail_unknown("dtype", printable(dtype), names, where);
  }
  entry.shape = fields.required<std::vector<i64>>("shape");
  const auto offsets = fields.required<std::vector<i64>>("data_offsets");
  fields.finish();
  if (offsets.size() != 2) fail("{}: data_offsets holds {} values, expected 2: [begin, end]", where, offsets.size());
  range = {offsets[0], offsets[1]};
  if (range.begin < 0 || range.begin > range.end || range.end > data_bytes)
    fail("{}: data_offsets [{}, {}] leave the {} bytes of data", where, range.begin, range.end, data_bytes);
  for (const i64 n : entry.shape)
    if (n < 0) fail("{}: shape {} has a negative dimension", where, entry.shape_text());
  const auto bytes = checked_bytes(entry.shape, size_of(entry.dtype));
  if (!bytes) fail("{}: shape {} of {} is larger than 63 bits can count", where, entry.shape_text(), dtype);
  if (*bytes != range.end - range.begin)
    fail("{}: shape {} of {} takes {} bytes, but data_offsets [{}, {}] span {}", where, entry.shape_text(), dtype,
         *bytes, range.begin, range.end, range.end - range.begin);
  return entry;
}

// The length of the header, checked against the file.
i64 header_bytes(std::span<const std::byte> file, const std::string& place) {
  if (file.size() < prefix_bytes)
    fail("{}: the file has {} bytes, expected a safetensors file: at least {}", place, file.size(), prefix_bytes + 2);
  u64 length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > most_header_bytes)
    fail("{}: the header claims {} bytes, expected at most {}; is this a safetensors file?", place, length,
         most_header_bytes);
  if (length > file.size() - prefix_bytes)
    fail("{}: the header claims {} bytes, but only {} follow; the file is cut or is not a safetensors file", place,
         length, file.size() - prefix_bytes);
  return static_cast<i64>(length);
}

}  // namespace

i64 TensorEntry::elements() const {
  i64 product = 1;
  for (const i64 n : shape) product *= n;
  return product;
}

std::string TensorEntry::shape_text() const { return fmt::format("({})", fmt::join(shape, ", ")); }

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  SafetensorsFile file;
  file.path_ = path;
  std::error_code ignored;  // what cannot be looked at fails below, when it is opened
  if (fs::is_directory(path, ignored)) {
    const fs::path single = path / "model.safetensors", index = path / "model.safetensors.index.json";
    const bool has_single = fs::exists(single, ignored), has_index = fs::exists(index, ignored);
    if (has_single && has_index)
      fail("{}: holds both model.safetensors and model.safetensors.index.json; expected one of them", path.string());
    if (!has_single && !has_index)
      fail("{}: expected model.safetensors or model.safetensors.index.json in it", path.string());
    has_single ? file.read_shard(single) : file.read_index(index);
  } else if (path.extension() == ".json") {
    file.read_index(path);
  } else {
    file.read_shard(path);
  }
  file.index_names();
  return file;
}

void SafetensorsFile::read_shard(const fs::path& path) {
  const MappedFile& file = files_.emplace_back(path);
  const std::string place = path.string();
  const i64 length = header_bytes(file.bytes(), place);
  const std::string_view header = file.text().substr(prefix_bytes, static_cast<size_t>(length));
  const auto data = file.bytes().subspan(prefix_bytes + header.size());
  if (!header.starts_with('{')) fail("{}: the header does not begin with '{{'", place);

  std::vector<std::pair<Range, TensorEntry>> entries;
  const Json json = parse_json(header, place + ": header");
  for (const auto& [name, value] : json.get_ref<const Json::object_t&>()) {
    if (name == metadata_name) {
      Fields texts(value, fmt::format("{}: {}", place, metadata_name));
      for (const auto& [key, text] : value.get_ref<const Json::object_t&>()) {
        if (!text.is_string()) texts.fail_value(printable(key), text, "a string");
        metadata_[key] = text.get<std::string>();
      }
    } else {
      Range range{};
      TensorEntry entry = parse_entry(name, value, place, static_cast<i64>(data.size()), range);
      entries.emplace_back(range, std::move(entry));
    }
  }

  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  i64 expected = 0;
  for (auto& [range, entry] : entries) {
    if (range.begin != expected)
      fail("{}: tensor '{}' begins at byte {} of the data, expected {}: {}", place, printable(entry.name), range.begin,
           expected, range.begin > expected ? "the bytes between belong to no tensor" : "tensors overlap");
    expected = range.end;
    entry.bytes = data.subspan(static_cast<size_t>(range.begin), static_cast<size_t>(range.end - range.begin));
    const auto alignment = static_cast<std::uintptr_t>(size_of(entry.dtype));
    if (reinterpret_cast<std::uintptr_t>(entry.bytes.data()) % alignment != 0)
      entry.bytes = aligned_.emplace_back(entry.bytes.begin(), entry.bytes.end());
    tensors_.push_back(std::move(entry));
  }
  if (expected != static_cast<i64>(data.size()))
    fail("{}: the tensors end at byte {} of the data, but it has {}; bytes that no tensor owns are refused", place,
         expected, data.size());
}

void SafetensorsFile::read_index(const fs::path& path) {
  const std::string place = path.string();
  const Json json = parse_json(MappedFile(path).text(), place);
  Fields fields(json, place);
  fields.ignore("metadata");
  const Json* weight_map = fields.find("weight_map");
  if (!weight_map || !weight_map->is_object()) fail("{}: expected an object 'weight_map': tensor -> file", place);
  fields.finish();

  std::map<std::string, std::set<std::string, std::less<>>> shards;  // file -> the tensors it must hold
  for (const auto& [name, shard] : weight_map->get_ref<const Json::object_t&>()) {
    const std::string file = shard.is_string() ? shard.get<std::string>() : "";
    // A plain name in this directory: nothing in a downloaded file may lead the reader elsewhere.
    if (file.empty() || file == "." || file == ".." || file.find_first_of(std::string_view("/\\\0", 3)) != file.npos)
      fail("{}: tensor '{}' is said to be in '{}', expected the name of a file in the same directory", place,
           printable(name), printable(shard.is_string() ? file : format_json(shard, place)));
    shards[file].insert(name);
  }
  for (const auto& [file, names] : shards) {
    const size_t first = tensors_.size();
    std::error_code ignored;
    if (!fs::exists(path.parent_path() / file, ignored))
      fail("{}: the shard {} is not beside it", place, printable(file));
    read_shard(path.parent_path() / file);
    const std::span<const TensorEntry> found = std::span(tensors_).subspan(first);
    for (const TensorEntry& entry : found)
      if (!names.contains(entry.name))
        fail("{}: tensor '{}' stands in {}, but the index does not say so", place, printable(entry.name),
             printable(file));
    if (found.size() == names.size()) continue;  // names are unique within a shard, so these are the same
    for (const std::string& name : names)
      if (std::none_of(found.begin(), found.end(), [&](const TensorEntry& entry) { return entry.name == name; }))
        fail("{}: tensor '{}' is said to be in {}, but is not", place, printable(name), printable(file));
  }
}

void SafetensorsFile::index_names() {
  for (size_t i = 0; i < tensors_.size(); ++i)
    if (!places_.emplace(tensors_[i].name, i).second)
      fail("{}: the tensor '{}' stands twice", path_.string(), printable(tensors_[i].name));
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &tensors_[found->second];
}

const TensorEntry& SafetensorsFile::at(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  std::vector<std::string> known;
  for (const TensorEntry& entry : tensors_) known.push_back(printable(entry.name));
  const auto near = close_matches(name, known);
  fail("{}: the tensor '{}' is missing{}", path_.string(), name,
       near.empty() ? "" : fmt::format("; it holds {}", fmt::join(near, ", ")));
}

void SafetensorsFile::release(const TensorEntry& tensor) const {
  for (const MappedFile& file : files_) {  // not of the copies, whose bytes would be lost
    const std::less_equal<const std::byte*> before;
    const std::byte *begin = file.bytes().data(), *first = tensor.bytes.data();
    if (before(begin, first) && before(first + tensor.bytes.size(), begin + file.bytes().size()))
      release_pages(tensor.bytes);
  }
}

void write_safetensors(const fs::path& path, std::span<const TensorEntry> tensors,
                       const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  Json& texts = header[metadata_name] = Json::object();
  texts["format"] = "pt";
  for (const auto& [key, text] : metadata) texts[key] = text;
  i64 end = 0;
  std::set<std::string_view> names{metadata_name};
  for (const TensorEntry& entry : tensors) {
    if (!names.insert(entry.name).second)
      fail("{}: cannot write the tensor '{}': the name stands twice or is reserved", path.string(), entry.name);
    const auto bytes = checked_bytes(entry.shape, size_of(entry.dtype));
    check(bytes && *bytes == static_cast<i64>(entry.bytes.size()), "tensor {} of shape {} and dtype {} has {} bytes",
          entry.name, entry.shape_text(), name_of(entry.dtype), entry.bytes.size());
    const i64 begin = std::exchange(end, end + *bytes);
    header.get_ref<Json::object_t&>().Json::object_t::Container::emplace_back(
        entry.name, Json{{"dtype", format_name(entry.dtype)}, {"shape", entry.shape}, {"data_offsets", {begin, end}}});
  }
  std::string text = format_json(header, path.string());
  const size_t used = prefix_bytes + text.size();
  text.append((data_alignment - used % data_alignment) % data_alignment, ' ');
  const u64 length = text.size();

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const TensorEntry& entry : tensors) file.write(entry.bytes);
  file.commit();
}

}  // namespace sparsam
