#include "formats/ctranslate2.h"

#include <algorithm>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/json.h"

namespace sparsam {

namespace {

constexpr u32 newest_version = 6;
constexpr u8 most_axes = 8;
constexpr float scale_of_old_i16 = 1000;
constexpr u64 least_variable_bytes = 11, least_alias_bytes = 8;
// By their number in the file, from version 4. u8 and u16 stand for i8 and i16.
constexpr DType formats[] = {DType::f32, DType::u8, DType::u16, DType::i32, DType::f16, DType::bf16};

std::string read_text(ByteReader& reader, std::string_view what) {
  const size_t begin = reader.position();
  const u64 length = reader.number<u16>(what);
  const std::string_view text = reader.text(length, what);
  if (length < 2 || text.find('\0') != length - 1)
    fail("{}: {} at byte {} is '{}', expected a text that ends with its only zero byte", reader.place(), what, begin,
         printable(text));
  return std::string(text.substr(0, length - 1));
}

u64 read_count(ByteReader& reader, std::string_view what, u64 least_bytes) {
  const u64 count = reader.number<u32>(what);
  if (count > reader.remaining() / least_bytes)
    fail("{}: the {} is {}, but only {} bytes follow", reader.place(), what, count, reader.remaining());
  return count;
}

TensorEntry read_variable(ByteReader& reader, u32 version) {
  TensorEntry entry{.name = read_text(reader, "the name of a variable"), .dtype = {}, .shape = {}, .bytes = {}};
  const std::string where = fmt::format("{}: tensor '{}'", reader.place(), printable(entry.name));
  const u8 axes = reader.number<u8>("the number of axes");
  if (axes > most_axes) fail("{}: {} axes, expected at most {}", where, axes, most_axes);
  for (u8 i = 0; i < axes; ++i) entry.shape.push_back(reader.number<u32>("a dimension"));

  const u8 code = reader.number<u8>("the number format");
  if (version >= 4) {
    if (code >= std::size(formats))
      fail("{}: number format {}, expected one below {}", where, code, std::size(formats));
    entry.dtype = formats[code];
  } else if (code == 1 || code == 2 || code == 4) {
    entry.dtype = code == 1 ? DType::u8 : code == 2 ? DType::u16 : DType::f32;
  } else {
    fail("{}: elements of {} bytes, expected 1, 2 or 4", where, code);
  }
  const u64 bytes = u64{reader.number<u32>("the size of the data")} * (version >= 4 ? 1 : code);
  u64 expected = static_cast<u64>(size_of(entry.dtype));
  for (const i64 n : entry.shape)  // without zeros no product of some dimensions exceeds that of all
    if (n == 0 || __builtin_mul_overflow(expected, static_cast<u64>(n), &expected))
      fail("{}: shape {}, expected dimensions from 1 whose product 64 bits can count", where, entry.shape_text());
  if (bytes != expected)
    fail("{}: {} bytes, but shape {} of {} takes {}", where, bytes, entry.shape_text(), name_of(entry.dtype), expected);
  entry.bytes = reader.take(bytes, fmt::format("the data of '{}'", printable(entry.name)));
  return entry;
}

template <class T>
T load(const TensorEntry& tensor, size_t index) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + index * sizeof value, sizeof value);
  return value;
}

float element(const TensorEntry& tensor, size_t index) {
  switch (tensor.dtype) {
    case DType::u8:
      return load<i8>(tensor, index);
    case DType::u16:
      return load<i16>(tensor, index);
    case DType::i32:
      return static_cast<float>(load<i32>(tensor, index));
    case DType::f16:
      return f16_to_float(load<u16>(tensor, index));
    case DType::bf16:
      return bf16_to_float(load<u16>(tensor, index));
    default:
      return load<float>(tensor, index);
  }
}

}  // namespace

bool Ctranslate2File::is_model(std::span<const std::byte> file) {
  try {
    ByteReader reader(file, "");
    const u32 version = reader.number<u32>("version");
    if (version < 1 || version > newest_version) return false;
    if (version == 1) reader.number<u32>("variables");
    const std::string text = read_text(reader, "text");
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
  } catch (const Error&) {
    return false;
  }
}

Ctranslate2File Ctranslate2File::open(const fs::path& path) {
  Ctranslate2File file(path);
  ByteReader reader(file.file_.bytes(), path.string());
  file.version_ = reader.number<u32>("the version");
  if (file.version_ < 1 || file.version_ > newest_version)
    fail("{}: version {}, expected a model of CTranslate2 of version 1 to {}", reader.place(), file.version_,
         newest_version);
  if (file.version_ >= 2) {
    file.specification_ = read_text(reader, "the name of the specification");
    file.revision_ = reader.number<u32>("the revision");
  }
  for (u64 left = read_count(reader, "number of variables", least_variable_bytes); left > 0; --left)
    file.add(read_variable(reader, file.version_));
  if (file.version_ >= 3)
    for (u64 left = read_count(reader, "number of aliases", least_alias_bytes); left > 0; --left) {
      const std::string alias = read_text(reader, "an alias"), name = read_text(reader, "the name behind an alias");
      const TensorEntry* variable = file.find(name);
      if (!variable)
        fail("{}: '{}' stands for the tensor '{}', which is not there", reader.place(), printable(alias),
             printable(name));
      file.add_alias(alias, *variable);
      const TensorEntry* scale = file.find(name + "_scale");
      if (scale && !file.find(alias + "_scale")) file.add_alias(alias + "_scale", *scale);
    }
  if (reader.remaining() != 0)
    fail("{}: {} bytes follow the last of its {} tensors", reader.place(), reader.remaining(), file.tensors_.size());
  return file;
}

void Ctranslate2File::add(TensorEntry entry) {
  if (!places_.emplace(entry.name, tensors_.size()).second)
    fail("{}: the tensor '{}' stands twice", path().string(), printable(entry.name));
  tensors_.push_back(std::move(entry));
}

void Ctranslate2File::add_alias(const std::string& name, const TensorEntry& of) {
  TensorEntry entry = of;
  entry.name = name;
  add(std::move(entry));
}

const TensorEntry* Ctranslate2File::find(std::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &tensors_[found->second];
}

std::vector<float> Ctranslate2File::scales_of(const TensorEntry& tensor) const {
  if (tensor.dtype != DType::u8 && tensor.dtype != DType::u16) return {1};
  const bool weight = tensor.shape.size() >= 2;  // else a flag, a count or a text
  const std::string where = fmt::format("{}: tensor '{}'", path().string(), printable(tensor.name));
  const TensorEntry* scale = find(tensor.name + "_scale");
  if (!scale) {
    if (weight && tensor.dtype == DType::u8) fail("{}: its scale is missing", where);
    return {weight ? scale_of_old_i16 : 1};
  }
  if (scale->dtype != DType::f32 || (scale->elements() != 1 && (!weight || scale->elements() != tensor.shape[0])))
    fail("{}: a scale of shape {} of {} for shape {}, expected f32, one number or one a row", where,
         scale->shape_text(), name_of(scale->dtype), tensor.shape_text());
  std::vector<float> scales(static_cast<size_t>(scale->elements()));
  std::memcpy(scales.data(), scale->bytes.data(), scale->bytes.size());
  for (const float value : scales)
    if (!(value > 0)) fail("{}: a scale of {}, expected more than 0", where, value);
  return scales;
}

std::vector<float> Ctranslate2File::floats(std::string_view name) const {
  const TensorEntry* tensor = find(name);
  if (!tensor) fail("{}: the tensor '{}' is missing", path().string(), printable(name));
  const std::vector<float> scales = scales_of(*tensor);
  std::vector<float> values(static_cast<size_t>(tensor->elements()));
  const size_t row = values.size() / scales.size();
  for (size_t i = 0; i < values.size(); ++i) values[i] = element(*tensor, i) / scales[i / row];
  return values;
}

}  // namespace sparsam
