// Models from files and to files: which format a path holds, and the parameters of Hugging Face's.
#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <set>

#include "base/threads.h"
#include "formats/safetensors.h"
#include "formats/torch_file.h"
#include "model/gguf.h"
#include "model/hugging_face.h"
#include "model/llama2c.h"
#include "model/model.h"
#include "model/pairing.h"

namespace sparsam {

namespace {

// --- tensors by name, whatever file they lie in ----------------------------------------------------------------------

class TensorFiles {
 public:
  // `path`: a directory or a file. Errors: neither format's files are there; a name stands twice.
  explicit TensorFiles(const fs::path& path) : where_(path.string()) {
    const bool directory = fs::is_directory(path);
    const fs::path torch = directory ? path / "pytorch_model.bin" : path;
    const fs::path index = path / "pytorch_model.bin.index.json";
    const bool safe =
        directory && (fs::exists(path / "model.safetensors") || fs::exists(path / "model.safetensors.index.json"));
    if (!safe && torch.extension() == ".bin" && fs::exists(torch)) {
      add(torch_.emplace_back(TorchFile::open(torch)).tensors());
    } else if (!safe && directory && fs::exists(index)) {
      for (const std::string& shard : shards_of(index))
        add(torch_.emplace_back(TorchFile::open(path / shard)).tensors());
    } else {
      add(safetensors_.emplace_back(SafetensorsFile::open(path)).tensors());
    }
  }

  const TensorEntry* find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second;
  }
  const std::map<std::string, const TensorEntry*>& all() const { return tensors_; }
  void release(const TensorEntry& tensor) const {
    for (const SafetensorsFile& file : safetensors_) file.release(tensor);
  }

 private:
  void add(const std::vector<TensorEntry>& tensors) {
    for (const TensorEntry& tensor : tensors)
      if (!tensors_.emplace(tensor.name, &tensor).second)
        fail("{}: the tensor '{}' stands twice", where_, printable(tensor.name));
  }
  static std::set<std::string> shards_of(const fs::path& index) {
    const std::string place = index.string();
    const Json json = parse_json(read_text(index), place);
    Fields fields(json, place);
    fields.ignore("metadata");
    const Json* weights = fields.find("weight_map");
    if (!weights || !weights->is_object()) fail("{}: expected an object 'weight_map': tensor -> file", place);
    fields.finish();
    std::set<std::string> files;
    for (const auto& [name, file] : weights->get_ref<const Json::object_t&>()) {
      // A plain name in this directory: nothing in a downloaded file may lead the reader elsewhere.
      const fs::path shard = file.is_string() ? file.get<std::string>() : "";
      if (shard.empty() || shard != shard.filename() || shard == "." || shard == "..")
        fail("{}: tensor '{}' is said to be in {}, expected the name of a file in the same directory", place,
             printable(name), printable(format_json(file, place)));
      files.insert(shard.string());
    }
    return files;
  }

  std::string where_;
  std::deque<SafetensorsFile> safetensors_;
  std::deque<TorchFile> torch_;
  std::map<std::string, const TensorEntry*> tensors_;
};

// --- a parameter in a stored tensor ----------------------------------------------------------------------------------

struct Storage {
  TensorFiles files;
  std::deque<Buffer> copies = {};  // what the files hold in another layout or dtype
};

// A parameter as rows, of which a vector has one a number.
struct Rows {
  i64 count, cols;
  explicit Rows(const ParameterSpec& spec) : count(spec.is_vector ? spec.cols : spec.rows), cols(spec.size() / count) {}
};
// Row `i` of the parameter is this row of its tensor.
i64 stored_row(const Source& source, i64 i) {
  return source.first + (source.block ? i / source.block * source.stride + i % source.block : i);
}
bool is_contiguous(const Source& source, i64 rows) { return source.block == 0 || source.block == rows; }

std::vector<i64> file_shape(const ParameterSpec& spec, const Source& source) {
  const Rows rows(spec);
  const i64 stored = source.stored_rows ? source.stored_rows : rows.count;
  if (spec.is_vector) return {stored};
  return source.transposed ? std::vector<i64>{rows.cols, stored} : std::vector<i64>{stored, rows.cols};
}
std::string shape_text(const std::vector<i64>& shape) { return TensorEntry{{}, {}, shape, {}}.shape_text(); }

// Calls f(row of the parameter, column, index in the tensor) in an order that suits both.
void for_each_element(const Source& source, const Rows& rows, i64 stored_rows, auto&& f) {
  constexpr i64 tile = 16;  // a cache line of either side
  parallel_ranges(rows.count, tile, [&](int, i64 begin, i64 end) {
    for (i64 r0 = begin; r0 < end; r0 += tile)
      for (i64 c0 = 0; c0 < rows.cols; c0 += tile)
        for (i64 r = r0; r < std::min(r0 + tile, end); ++r) {
          const i64 from = stored_row(source, r);
          for (i64 c = c0; c < std::min(c0 + tile, rows.cols); ++c)
            f(r, c, source.transposed ? c * stored_rows + from : from * rows.cols + c);
        }
  });
}

// Calls f with a null pointer to an unsigned integer of the dtype's size: numbers are moved, not computed with.
void with_words(DType dtype, auto&& f) {
  if (size_of(dtype) == 2)
    f(static_cast<const u16*>(nullptr));
  else
    f(static_cast<const u32*>(nullptr));
}

class Reader {
 public:
  Reader(const HuggingFaceModel& model, std::string where, Storage& storage)
      : model_(model), where_(std::move(where)), storage_(storage) {}

  void operator()(const std::string& name, const ParameterSpec& spec, Matrix& matrix, const Source& source) {
    matrix = read(entry_of(source.tensor, spec, source, name), spec, source);
  }

  // After all parameters: tensors that no parameter lies in.
  void finish() {
    const std::string& head = model_.sources.head.tensor;  // some writers store the tied head a second time
    for (const auto& [name, entry] : storage_.files.all())
      if (!used_.contains(name) && !is_buffer(name) && !(model_.config.tied && name == head))
        fail("{}: tensor {} has no place in the model that config.json describes", where_, printable(name));
  }

 private:
  const TensorEntry& entry_of(const std::string& tensor, const ParameterSpec& spec, const Source& source,
                              const std::string& parameter) {
    const TensorEntry* entry = storage_.files.find(tensor);
    if (!entry && tensor.starts_with(model_.prefix)) entry = storage_.files.find(tensor.substr(model_.prefix.size()));
    const std::vector<i64> expected = file_shape(spec, source);
    if (!entry)
      fail("{}: tensor {} is missing; config.json requires it with shape {}{}", where_, tensor, shape_text(expected),
           tensor == parameter ? "" : fmt::format(" (for {})", parameter));
    if (entry->shape != expected)
      fail("{}: tensor {} has shape {}, config.json says {}", where_, printable(entry->name), entry->shape_text(),
           shape_text(expected));
    if (entry->dtype != DType::f32 && entry->dtype != DType::f16 && entry->dtype != DType::bf16)
      fail("{}: tensor {} is of dtype {}, expected f32, f16 or bf16", where_, printable(entry->name),
           name_of(entry->dtype));
    used_.insert(entry->name);
    return *entry;
  }

  Matrix read(const TensorEntry& entry, const ParameterSpec& spec, const Source& source) {
    const Rows rows(spec);
    const bool converted = spec.is_vector && (entry.dtype != DType::f32 || source.offset != 0);
    if (!source.transposed && !converted && is_contiguous(source, rows.count)) {
      const Matrix part =
          Matrix{entry.dtype, entry.elements() / rows.cols, rows.cols, entry.bytes}.slice(source.first, rows.count);
      return {entry.dtype, spec.rows, spec.cols, part.bytes};
    }
    const i64 stored_rows = entry.elements() / rows.cols;
    const DType dtype = spec.is_vector ? DType::f32 : entry.dtype;
    Buffer& copy = storage_.copies.emplace_back(spec.size() * size_of(dtype));
    if (spec.is_vector) {
      const Matrix stored{entry.dtype, stored_rows, 1, entry.bytes};
      for (i64 i = 0; i < rows.count; ++i)
        copy.as<float>()[static_cast<size_t>(i)] = stored.at(stored_row(source, i), 0) + source.offset;
    } else {
      with_words(dtype, [&]<class Word>(const Word*) {
        const Word* from = reinterpret_cast<const Word*>(entry.bytes.data());
        Word* to = copy.as<Word>().data();
        for_each_element(source, rows, stored_rows, [&](i64 r, i64 c, i64 at) { to[r * rows.cols + c] = from[at]; });
      });
      storage_.files.release(entry);  // at once, so that no more than one tensor is in memory twice
    }
    return {dtype, spec.rows, spec.cols, copy.bytes()};
  }

  const HuggingFaceModel& model_;
  std::string where_;
  Storage& storage_;
  std::set<std::string> used_;
};

// `path`: a directory, or a file with config.json beside it.
Model load_hugging_face(const fs::path& path) {
  const fs::path config_path = (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
  if (!fs::exists(config_path)) fail("{}: no such file; expected a model's description", config_path.string());
  const HuggingFaceModel described =
      read_hugging_face(parse_json(read_text(config_path), config_path.string()), config_path.string());
  auto storage = std::make_shared<Storage>(Storage{TensorFiles(path)});
  Model model{described.config, empty_params<Matrix>(described.config), storage};
  Reader reader(described, path.string(), *storage);
  for_each_parameter(parameter_specs(model.config), reader, model.weights, described.sources);
  reader.finish();
  return model;
}

void override_activation(Config& config, const std::string& name) {
  const std::string where = "the given activation";
  const bool both = name == "drelu";
  const size_t colon = name.find(':');
  std::vector<std::string> known = function_names();
  known.emplace_back("drelu");
  if (std::find(known.begin(), known.end(), name.substr(0, colon)) == known.end())
    fail_unknown("activation", name, known, where, Exit::usage);
  const Function function = both ? Function::relu : function_from_name(name.substr(0, colon), where);
  float threshold = 0;
  if (function == Function::fatrelu) {
    const std::string number = colon == std::string::npos ? "" : name.substr(colon + 1);
    char* end = nullptr;
    threshold = std::strtof(number.c_str(), &end);
    if (number.empty() || *end != '\0') fail_usage("{}: '{}' needs its threshold: fatrelu:0.01", where, name);
  } else if (colon != std::string::npos) {
    fail_usage("{}: '{}': only fatrelu has a threshold", where, name);
  }
  for (Layer& layer : config.layers) {
    if (auto* m = std::get_if<Mlp>(&layer.mlp)) {
      if (both) fail_usage("{}: drelu needs gated MLPs, which this model has not", where);
      m->activation = function, m->threshold = threshold;
    }
    if (auto* m = std::get_if<GatedMlp>(&layer.mlp))
      m->activation = function, m->activate_up = both, m->threshold = threshold;
  }
  validate(config, where);
}

Model load_any(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: no such model", path.string());
  if (fs::is_directory(path)) return load_hugging_face(path);
  if (path.extension() == ".gguf") return load_gguf(path);
  if (path.extension() == ".safetensors") return load_hugging_face(path);
  if (path.extension() == ".bin")
    return TorchFile::is_archive(MappedFile(path).bytes()) ? load_hugging_face(path) : load_llama2c(path);
  fail("{}: expected a model directory with config.json, a .safetensors, .gguf or .bin file", path.string());
}

}  // namespace

Model load_model(const fs::path& path, const LoadOptions& options) {
  Model model = load_any(path);
  if (!options.activation.empty()) override_activation(model.config, options.activation);
  return model;
}

namespace {

// --- writing ---------------------------------------------------------------------------------------------------------

// The tensors of a file, from parameters that lie in them as `sources` says: the inverse of Reader.
class Writer {
 public:
  explicit Writer(DType vectors) : vectors_(vectors) {}
  void operator()(const std::string&, const ParameterSpec& spec, const Matrix& matrix, const Source& source) {
    const Matrix plain = is_quantised(matrix.dtype)                 ? dequantised(matrix)
                         : spec.is_vector && vectors_ != DType::f32 ? narrowed(matrix)
                                                                    : matrix;
    const std::vector<i64> shape = file_shape(spec, source);
    if (source.stored_rows == 0 && !source.transposed) {
      entries_.push_back({source.tensor, plain.dtype, shape, plain.bytes});
      return;
    }
    auto found = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.name == source.tensor; });
    if (found == entries_.end()) {
      entries_.push_back({source.tensor, plain.dtype, shape, {}});
      found = entries_.end() - 1;
      found->bytes = copies_.emplace_back(found->elements() * size_of(plain.dtype)).bytes();
      places_[source.tensor] = &copies_.back();
    }
    if (found->dtype != plain.dtype)
      fail("cannot write the tensor {}: its parts are of dtypes {} and {}", source.tensor, name_of(found->dtype),
           name_of(plain.dtype));
    const Rows rows(spec);
    with_words(plain.dtype, [&]<class Word>(const Word*) {
      const Word* from = plain.as<Word>();
      Word* to = places_.at(source.tensor)->template as<Word>().data();
      for_each_element(source, rows, found->elements() / rows.cols,
                       [&](i64 r, i64 c, i64 at) { to[at] = from[r * rows.cols + c]; });
    });
  }
  const std::vector<TensorEntry>& entries() const { return entries_; }

 private:
  Matrix dequantised(const Matrix& matrix) {
    Buffer& copy = copies_.emplace_back(matrix.rows * matrix.cols * size_of(DType::f32));
    const auto values = copy.as<float>();
    parallel_ranges(matrix.rows, 16, [&](int, i64 begin, i64 end) {
      for (i64 r = begin; r < end; ++r)
        read_row(matrix, r, values.subspan(static_cast<size_t>(r * matrix.cols), static_cast<size_t>(matrix.cols)));
    });
    return {DType::f32, matrix.rows, matrix.cols, copy.bytes()};
  }

  Matrix narrowed(const Matrix& vector) {
    Buffer& copy = copies_.emplace_back(vector.cols * size_of(vectors_));
    const MutableMatrix narrow{vectors_, 1, vector.cols, copy.bytes()};
    for (i64 i = 0; i < vector.cols; ++i) narrow.set(0, i, vector.at(0, i));
    return narrow;
  }

  DType vectors_;
  std::vector<TensorEntry> entries_;
  std::deque<Buffer> copies_;
  std::map<std::string, Buffer*> places_;
};

// The number format of all vectors: that of the matrices where none of their values is lost, so that files of 16 bits
// come back as they were; else f32.
DType vector_dtype(const Model& model) {
  const DType narrow = model.weights.token_embedding.dtype;
  if (narrow != DType::bf16 && narrow != DType::f16) return DType::f32;
  bool exact = true;
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string&, const ParameterSpec& spec, const Matrix& m) {
        if (!spec.is_vector) return;
        for (const float value : as_vector(m).span()) {
          const float kept =
              narrow == DType::bf16 ? bf16_to_float(float_to_bf16(value)) : f16_to_float(float_to_f16(value));
          exact = exact && std::bit_cast<u32>(kept) == std::bit_cast<u32>(value);
        }
      },
      model.weights);
  return exact ? narrow : DType::f32;
}

const char* torch_dtype(DType dtype) {
  return dtype == DType::bf16 ? "bfloat16" : dtype == DType::f16 ? "float16" : "float32";
}

}  // namespace

void save_model(const Model& model, const fs::path& directory) {
  // transformers' families pair halves: what can be one of them is laid out so.
  Config halves = model.config;
  halves.rotary.pairing = Pairing::halves;
  if (model.config.rotary.pairing != Pairing::halves && to_json(halves)["model_type"] != "sparsam")
    return save_model(with_pairing(model, Pairing::halves), directory);
  Json json = to_json(model.config);
  json["torch_dtype"] = torch_dtype(model.weights.token_embedding.dtype);
  const HuggingFaceModel described = read_hugging_face(json, "config.json");
  Writer writer(vector_dtype(model));
  for_each_parameter(parameter_specs(model.config), writer, model.weights, described.sources);
  write_safetensors(directory / "model.safetensors", writer.entries(), {});
  write_text(directory / "config.json", format_json(json, "config.json", 2) + "\n");
}

}  // namespace sparsam
