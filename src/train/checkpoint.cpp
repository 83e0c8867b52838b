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

void write_moments(const fs::path& path, Trainer& trainer) {
  std::vector<TensorEntry> entries;
  const auto add = [&](const char* kind, FlatParams& moments) {
    for_each_parameter(
        parameter_specs(trainer.model().config),
        [&](const std::string& name, const ParameterSpec& spec, const Out<float, 2>& view) {
          entries.push_back({kind + name, DType::f32, shape_of(spec), std::as_bytes(view.span())});
        },
        moments.views);
  };
  add("m.", trainer.first_moments());
  add("v.", trainer.second_moments());
  write_safetensors(path, entries);
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
  write_moments(directory.path() / optimizer_file, trainer);
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
        if (from.dtype == DType::f32) {
          std::memcpy(to.data(), from.bytes.data(), from.bytes.size());
        } else {
          for (i64 i = 0; i < spec.size(); ++i) to.data()[i] = from.at(0, i);
        }
      },
      model.weights, weights.views);
}

void read_moments(const fs::path& checkpoint, Trainer& trainer) {
  const SafetensorsFile file = SafetensorsFile::open(checkpoint / optimizer_file);
  const auto read = [&](const char* kind, FlatParams& moments) {
    for_each_parameter(
        parameter_specs(trainer.model().config),
        [&](const std::string& name, const ParameterSpec& spec, const Out<float, 2>& view) {
          const TensorEntry& entry = file.at(kind + name);
          const TensorEntry expected{entry.name, DType::f32, shape_of(spec), {}};
          if (entry.shape != expected.shape || entry.dtype != expected.dtype)
            fail("{}: tensor {} is {} {}, expected f32 {}", file.path().string(), entry.name, name_of(entry.dtype),
                 entry.shape_text(), expected.shape_text());
          std::memcpy(view.data(), entry.bytes.data(), entry.bytes.size());
        },
        moments.views);
  };
  read("m.", trainer.first_moments());
  read("v.", trainer.second_moments());
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
