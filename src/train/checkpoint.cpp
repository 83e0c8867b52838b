#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/threads.h"
#include "formats/safetensors.h"
#include "train/fields.h"

namespace sparsam {

namespace {

constexpr std::string_view prefix = "checkpoint-";
constexpr const char* optimizer_file = "training/optimizer.safetensors";
constexpr const char* state_file = "training/state.json";

// The step in the name of a checkpoint; nothing for another name.
std::optional<i64> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(prefix)) return std::nullopt;
  i64 step = 0;
  const auto [end, error] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

// Oldest first.
std::vector<fs::path> checkpoints(const fs::path& out) {
  std::vector<std::pair<i64, fs::path>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(out, error))
    if (const auto step = step_of(entry.path()); step && entry.is_directory()) found.emplace_back(*step, entry.path());
  std::sort(found.begin(), found.end());
  std::vector<fs::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

// Out of sight under its final name first: what is left of an interrupted removal is no checkpoint.
void remove_checkpoint(const fs::path& path) {
  const fs::path hidden = path.parent_path() / fmt::format(".{}.removed", path.filename().string());
  std::error_code error;
  fs::rename(path, hidden, error);
  fs::remove_all(hidden, error);
}

// `to` becomes another name of the file `from`, or a copy of it where the file system has no hard links.
void replace_by_link(const fs::path& from, const fs::path& to) {
  const fs::path temporary = to.parent_path() / fmt::format(".{}.link", to.filename().string());
  std::error_code error;
  fs::remove(temporary, error);
  fs::create_hard_link(from, temporary, error);
  if (!error) fs::rename(temporary, to, error);
  if (error) {
    const MappedFile source(from);
    AtomicFile copy(to);
    copy.write(source.bytes());
    copy.commit();
  }
  fs::remove(temporary, error);  // a rename onto another name of the same file leaves both
}

std::vector<i64> shape_of(const ParameterSpec& spec) {
  return spec.is_vector ? std::vector<i64>{spec.cols} : std::vector<i64>{spec.rows, spec.cols};
}

std::span<const std::byte> bytes_of(const Matrix& matrix) { return matrix.bytes; }
std::span<const std::byte> bytes_of(const Out<float, 2>& view) { return std::as_bytes(view.span()); }

// T: Matrix or a view, of f32.
template <class T>
void write_moments(const fs::path& path, const Config& config, const Params<T>& first, const Params<T>& second,
                   i64 updates) {
  std::vector<TensorEntry> entries;
  const auto add = [&](const char* kind, const Params<T>& moments) {
    for_each_parameter(
        parameter_specs(config),
        [&](const std::string& name, const ParameterSpec& spec, const T& moment) {
          entries.push_back({kind + name, DType::f32, shape_of(spec), bytes_of(moment)});
        },
        moments);
  };
  add("m.", first);
  add("v.", second);
  write_safetensors(path, entries, {{"updates", fmt::format("{}", updates)}});
}

Json state_json(const RunState& s) {
  return {{"version", 1},
          {"step", s.step},
          {"tokens", s.tokens},
          {"steps", s.steps},
          {"sources", fields_to_json(s.sources)},
          {"architecture", fields_to_json(s.architecture)},
          {"recipe", fields_to_json(s.recipe)},
          {"activation", s.activation},
          {"data_hash", fmt::format("{:016x}", s.data_hash)},
          {"valid_hash", fmt::format("{:016x}", s.valid_hash)},
          {"teacher_hash", fmt::format("{:016x}", s.teacher_hash)},
          {"threads", s.threads},
          {"seconds", s.seconds},
          {"loss", s.loss},
          {"initial_loss", s.initial_loss},
          {"best_loss", s.best_loss},
          {"best_step", s.best_step},
          {"evaluated_step", s.evaluated_step}};
}

u64 hash_from_hex(const std::string& text, const std::string& where) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    fail("{}: hash is '{}', expected 16 hexadecimal digits", where, printable(text));
  return value;
}

}  // namespace

std::optional<fs::path> newest_checkpoint(const fs::path& out) {
  const auto all = checkpoints(out);
  return all.empty() ? std::nullopt : std::optional(all.back());
}

std::string checkpoint_name(i64 step) { return fmt::format("{}{:06}", prefix, step); }

fs::path save_checkpoint(const fs::path& out, Trainer& trainer, const Tokenizer& tokenizer, const RunState& state,
                         i64 keep) {
  fs::path path = out / checkpoint_name(state.step);
  AtomicDirectory directory(path);
  fs::create_directory(directory.path() / "training");
  save_model(trainer.model(), directory.path());
  write_text(directory.path() / "tokenizer.json", tokenizer.to_json());
  write_moments(directory.path() / optimizer_file, trainer.model().config, trainer.first_moments().views,
                trainer.second_moments().views, trainer.updates());
  write_text(directory.path() / state_file, format_json(state_json(state), "state.json", 2) + "\n");
  directory.commit();

  for (const char* name : {"tokenizer.json", "config.json", "model.safetensors"})
    replace_by_link(path / name, out / name);
  std::vector<fs::path> all = checkpoints(out);
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) remove_checkpoint(all[i]);
  return path;
}

RunState read_state(const fs::path& checkpoint) {
  const std::string path = (checkpoint / state_file).string();
  const Json json = parse_json(read_text(path), path);
  Fields fields(json, path);
  if (const i64 version = fields.required<i64>("version"); version != 1)
    fail("{}: version {}, expected 1", path, version);
  RunState s;
  constexpr i64 most = i64{1} << 60;
  s.step = fields.required<i64>("step", {.least = 0, .most = most});
  s.tokens = fields.required<i64>("tokens", {.least = 0, .most = most});
  s.steps = fields.required<i64>("steps", {.least = 1, .most = most});
  s.sources = fields_from_json<Sources>(fields.required<Json>("sources"), path + ": sources");
  s.architecture = fields_from_json<Architecture>(fields.required<Json>("architecture"), path + ": architecture");
  s.recipe = fields_from_json<Recipe>(fields.required<Json>("recipe"), path + ": recipe");
  s.activation = fields.required<std::string>("activation");
  s.data_hash = hash_from_hex(fields.required<std::string>("data_hash"), path);
  s.valid_hash = hash_from_hex(fields.required<std::string>("valid_hash"), path);
  s.teacher_hash = hash_from_hex(fields.required<std::string>("teacher_hash"), path);
  s.threads = fields.required<int>("threads");
  s.seconds = fields.required<double>("seconds");
  s.loss = fields.required<double>("loss");
  s.initial_loss = fields.required<double>("initial_loss");
  s.best_loss = fields.required<double>("best_loss");
  s.best_step = fields.required<i64>("best_step");
  s.evaluated_step = fields.required<i64>("evaluated_step");
  fields.finish();
  return s;
}

void read_weights(const Model& model, const FlatParams& weights) {
  for_each_parameter(
      parameter_specs(model.config),
      [](const std::string&, const ParameterSpec& spec, const Matrix& from, const Out<float, 2>& to) {
        if (to.empty()) return;  // the head of another task
        if (from.dtype == DType::f32) {
          std::memcpy(to.data(), from.bytes.data(), from.bytes.size());
        } else {
          for (i64 i = 0; i < spec.size(); ++i) to.data()[i] = from.at(0, i);
        }
      },
      model.weights, weights.views);
}

void take_up(const OptimizerState& state, Trainer& trainer, i64 step) {
  read_weights(state.first, trainer.first_moments());
  read_weights(state.second, trainer.second_moments());
  trainer.go_on_from(step, state.updates);
}

fs::path directory_with_optimizer(const fs::path& model) {
  if (fs::exists(model / optimizer_file)) return model;
  const auto checkpoint = newest_checkpoint(model);
  if (!checkpoint || !fs::exists(*checkpoint / optimizer_file))
    fail("{}: has no state of the optimizer to keep: expected a run with a checkpoint, or {} in it", model.string(),
         optimizer_file);
  return *checkpoint;
}

OptimizerState load_optimizer(const fs::path& directory, const Config& config) {
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(directory / optimizer_file));
  const auto read = [&](const char* kind) {
    Model moments{config, empty_params<Matrix>(config), file};
    for_each_parameter(
        parameter_specs(config),
        [&](const std::string& name, const ParameterSpec& spec, Matrix& moment) {
          const TensorEntry& entry = file->at(kind + name);
          const TensorEntry expected{entry.name, DType::f32, shape_of(spec), {}};
          if (entry.shape != expected.shape || entry.dtype != expected.dtype)
            fail("{}: tensor {} is {} {}, expected f32 {}", file->path().string(), entry.name, name_of(entry.dtype),
                 entry.shape_text(), expected.shape_text());
          moment = {DType::f32, spec.rows, spec.cols, entry.bytes};
        },
        moments.weights);
    return moments;
  };
  const auto updates = file->metadata().find("updates");
  OptimizerState state{read("m."), read("v.")};
  const std::string text = updates == file->metadata().end() ? "" : updates->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), state.updates);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || state.updates < 0)
    fail("{}: its metadata say '{}' for updates, expected their number", file->path().string(), printable(text));
  return state;
}

void save_optimizer(const OptimizerState& state, const fs::path& directory) {
  const fs::path path = directory / optimizer_file;
  fs::create_directories(path.parent_path());
  write_moments(path, state.first.config, state.first.weights, state.second.weights, state.updates);
}

void remove_checkpoints(const fs::path& out) {
  for (const fs::path& path : checkpoints(out)) remove_checkpoint(path);
}

void remove_leftovers(const fs::path& out) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(out, error))
    if (entry.path().filename().string().starts_with(fmt::format(".{}", prefix))) leftovers.push_back(entry.path());
  for (const fs::path& path : leftovers) fs::remove_all(path, error);
}

}  // namespace sparsam
