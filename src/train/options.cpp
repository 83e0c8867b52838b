#include "train/options.h"

#include <algorithm>

#include "train/l1_schedule.h"

namespace sparsam {

template <>
std::vector<std::string> enum_names<Compute>() {
  return {"f32", "bf16"};
}

template <>
std::vector<std::string> enum_names<Freeze>() {
  return {"none", "old"};
}
template <>
std::vector<std::string> enum_names<OptimizerStart>() {
  return {"reset", "keep"};
}

template <>
std::vector<std::string> enum_names<Task>() {
  return {"language", "masked", "classify"};
}

Schedule schedule_of(const Recipe& recipe, i64 steps) {
  const auto derived = [](i64 given, i64 otherwise) { return given >= 0 ? given : otherwise; };
  return {.kind = recipe.schedule,
          .peak = recipe.lr,
          .final = recipe.lr * recipe.final_lr,
          .warmup = derived(recipe.warmup, std::clamp<i64>(steps / 20, 1, 1000)),
          .decay = derived(recipe.decay, steps / 5),
          .steps = steps};
}

RunOptions RunOptions::of_preset(std::string_view name) {
  RunOptions options;
  options.architecture = preset(name);
  options.sources.preset = name;
  Recipe& recipe = options.recipe;
  if (name == "nano") recipe.lr = 6e-3;
  if (name == "micro") recipe.lr = 2e-3;
  if (name == "mini") recipe.lr = 1.5e-3;
  if (name == "small") recipe.lr = 1e-3, recipe.batch = 16;
  if (name == "gpt2") recipe.lr = 6e-4, recipe.batch = 8, recipe.sequence = 512;
  return options;
}

RunOptions RunOptions::of_model(std::string_view directory) {
  RunOptions options;
  options.sources.from = directory;
  options.recipe.lr = 3e-4;
  options.recipe.batch = 0;
  return options;
}

void validate(const RunOptions& options) {
  const Recipe& r = options.recipe;
  const Upkeep& u = options.upkeep;
  const auto range = [](const char* flag, auto value, double least, double most) {
    if (!(static_cast<double>(value) >= least && static_cast<double>(value) <= most))
      fail_usage("--{} is {}, expected {} to {}", flag, value, least, most);
  };
  constexpr double many = 1e15;
  range("tokens", r.tokens, 0, many), range("steps", r.steps, 0, many), range("minutes", r.minutes, 0, 1e7);
  range("epochs", r.epochs, 0, 1e9);
  if ((r.tokens > 0) + (r.steps > 0) + (r.epochs > 0) + (r.minutes > 0) != 1)
    fail_usage("train: give exactly one of --tokens, --steps, --epochs and --minutes, more than 0");
  if (!(r.mask > 0 && r.mask < 1)) fail_usage("--mask is {}, expected more than 0 and less than 1", r.mask);
  range("batch", r.batch, 0, 1e6), range("accumulate", r.accumulate, 1, 1e6), range("sequence", r.sequence, 0, 1e7);
  range("lr", r.lr, 0, 1e3), range("final-lr", r.final_lr, 0, 1);
  range("ramp", r.ramp, -1, many), range("mup-base", r.mup_base, 0, 1 << 20);
  range("warmup", r.warmup, -1, many), range("wsd-decay", r.decay, -1, many);
  range("weight-decay", r.weight_decay, 0, 1e3), range("clip", r.clip, 0, 1e9), range("eps", r.eps, 1e-30, 1);
  range("distill-weight", r.distill_weight, 0, 1), range("distill-temperature", r.distill_temperature, 1e-3, 1e3);
  L1Schedule(r.l1);
  if (!(r.beta1 >= 0 && r.beta1 < 1)) fail_usage("--beta1 is {}, expected 0 to less than 1", r.beta1);
  if (!(r.beta2 >= 0 && r.beta2 < 1)) fail_usage("--beta2 is {}, expected 0 to less than 1", r.beta2);
  range("eval-every", u.eval_every, 0, many), range("eval-tokens", u.eval_tokens, 0, many);
  range("save-every", u.save_every, 1, many), range("keep", u.keep, 1, 1e6), range("log-every", u.log_every, 1, many);
  range("stop-after", u.stop_after, 0, many);
  range("valid-fraction", options.sources.valid_fraction, 0, 0.9);
  range("corpus-bytes", options.sources.corpus_bytes, 1000, 1e11);
  if (options.out.empty()) fail_usage("train: give --out, the directory for the model");
  if (!options.sources.from.empty() && !options.sources.preset.empty())
    fail_usage("train: --from has a shape already; leave out --preset");
  if (options.sources.from.empty() && r.optimizer == OptimizerStart::keep)
    fail_usage("--optimizer keep: the moments of what? give --from");
  if (options.sources.from.empty() && r.freeze == Freeze::old)
    fail_usage("--freeze old: a new model has no old tokens; give --from");
  if (!options.sources.teacher.empty() && r.task != Task::language)
    fail_usage("--teacher predicts the next token of a text: give it without --task {}", enum_name(r.task));
  if (options.sources.teacher.empty() && (r.distill_weight != Recipe().distill_weight || r.distill_temperature != 1))
    fail_usage("--distill-weight and --distill-temperature are of --teacher, which is not given");
  const bool language = r.task == Task::language;
  const std::string task = "--task " + enum_names<Task>()[static_cast<size_t>(r.task)];
  if (r.task == Task::classify && options.sources.data.empty())
    fail_usage("train: {} needs labelled texts: give --data", task);
  if (!language && !options.sources.teacher.empty()) fail_usage("--teacher predicts next tokens; leave out {}", task);
  if (!language && r.optimizer == OptimizerStart::keep)
    fail_usage("--optimizer keep is of next tokens; leave out {}", task);
  if (options.sources.from.empty() && !options.activation.empty())
    fail_usage("train: an activation takes the place of that of --from, which is not given");
}

}  // namespace sparsam
