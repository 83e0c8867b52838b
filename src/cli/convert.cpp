// sparsam convert: a model from any format into any other, its matrices in fewer bits if wanted, and what that costs.
#include <optional>

#include "base/progress.h"
#include "cli/held_out.h"
#include "cli/output.h"
#include "levers/quantise.h"
#include "measure/divergence.h"
#include "measure/finite.h"

namespace sparsam {

namespace {

struct ConvertFlags : WindowFlags {
  std::string in, out, type, calibrate, backend = "cpu";
  std::vector<std::string> data;
  CalibrationOptions calibration;
};

void check_flags(const ConvertFlags& flags) {
  check_output("convert", flags.out, flags.in);
  if (!flags.calibrate.empty() && flags.type.empty())
    fail_usage("convert: --calibrate weighs the errors of --type: give both");
  if (flags.type.empty()) return;
  const std::string recipe = check_recipe(flags.type);
  const bool plain = recipe == "f32" || recipe == "f16" || recipe == "bf16";
  if (!plain && fs::path(flags.out).extension() != ".gguf")
    fail_usage("convert: --type {} stands in GGUF files only: the output {} must end in .gguf", recipe, flags.out);
}

Quantised convert_weights(const ConvertFlags& flags, const Common& common, const Model& model,
                          const std::optional<Tokenizer>& tokenizer, Backend& backend) {
  if (flags.type.empty()) return {model, {}};
  std::optional<Importance> importance;
  if (!flags.calibrate.empty()) {
    Progress progress("calibrate", common.quiet);
    const TokenText text = load_text(flags.calibrate, *tokenizer);
    importance = measure_importance(model, backend, text.tokens, flags.calibration,
                                    [&](double part) { progress.update(part, ""); });
  }
  Progress progress("convert", common.quiet);
  return quantise(model, flags.type, importance ? &*importance : nullptr,
                  [&](double part) { progress.update(part, ""); });
}

// What the change of the weights costs: perplexity before and after, on the same tokens in f32.
std::optional<Divergence> compare(const ConvertFlags& flags, const Common& common, const WindowOptions& windows,
                                  const Model& before, const Model& after, const std::optional<Tokenizer>& tokenizer,
                                  Backend& backend) {
  if (flags.data.empty()) return std::nullopt;
  const Transformer base(before, backend, Compute::f32, windows.context);
  const Transformer other(after, backend, Compute::f32, windows.context);
  Divergences all;
  for (const std::string& path : flags.data) {
    Progress progress("eval " + path, common.quiet);
    all.add(measure_divergence(base, other, *tokenizer, load_text(path, *tokenizer), windows,
                               [&](double part) { progress.update(part, ""); }));
  }
  return summarize(all);
}

Json matrices_json(std::span<const QuantisedMatrix> matrices) {
  Json json = Json::array();
  for (const QuantisedMatrix& m : matrices)
    json.push_back({{"name", m.name},
                    {"from", name_of(m.from)},
                    {"to", name_of(m.to)},
                    {"wanted", name_of(m.wanted)},
                    {"shape", {m.rows, m.cols}},
                    {"bytes", m.bytes},
                    {"relative_error", m.relative},
                    {"weighted_error", m.weighted},
                    {"largest_error", m.largest}});
  return json;
}

Json quality_json(const Divergence& d, const std::string& protocol) {
  return {{"protocol", protocol},
          {"tokens", d.tokens},
          {"perplexity_before", d.base.perplexity},
          {"perplexity_after", d.other.perplexity},
          {"kl", d.kl.mean},
          {"top1_agreement", d.top1_agreement.mean}};
}

i64 bytes_on_disk(const fs::path& path) {
  if (!fs::is_directory(path)) return static_cast<i64>(fs::file_size(path));
  i64 total = 0;
  for (const auto& entry : fs::directory_iterator(path)) total += static_cast<i64>(entry.file_size());
  return total;
}

Exit convert(const ConvertFlags& flags, const Common& common) {
  check_flags(flags);
  const Model model = load_model(flags.in);
  const WindowOptions windows = windows_of(flags, model.config);
  const std::optional<Tokenizer> tokenizer = tokenizer_beside(flags.in);
  if (!tokenizer && (!flags.data.empty() || !flags.calibrate.empty()))
    fail("{}: has no tokenizer, which --data and --calibrate need", flags.in);
  if (!flags.data.empty() || !flags.calibrate.empty()) require_language_model(model.config, flags.in);
  check_finite(model, flags.in);
  const auto backend = make_backend(flags.backend);
  const Quantised result = convert_weights(flags, common, model, tokenizer, *backend);
  const std::optional<Divergence> quality = compare(flags, common, windows, model, result.model, tokenizer, *backend);

  Json manifest{{"verb", "convert"},
                {"model", flags.in},
                {"type", flags.type.empty() ? Json(nullptr) : Json(check_recipe(flags.type))},
                {"calibrated", !flags.calibrate.empty()},
                {"weight_bytes_before", weight_bytes(model)},
                {"weight_bytes_after", weight_bytes(result.model)}};
  if (quality) manifest["quality"] = quality_json(*quality, describe(windows));
  save_output(result.model, tokenizer, flags.in, flags.out, manifest);

  if (common.json) {
    Json json{{"out", flags.out}, {"bytes", bytes_on_disk(flags.out)}};
    json.update(manifest);
    json["matrices"] = matrices_json(result.matrices);
    print_json(json);
    return Exit::done;
  }
  if (!result.matrices.empty()) fmt::print("{}", error_table(result.matrices));
  if (quality) {
    fmt::print("{}\n", describe(windows));
    fmt::print(
        "perplexity  {:.4f} -> {:.4f} ({:+.2f} %); KL divergence {:.6f} nats per token; top-1 agreement {:.2f} %\n",
        quality->base.perplexity, quality->other.perplexity,
        100 * (quality->other.perplexity / quality->base.perplexity - 1), quality->kl.mean,
        100 * quality->top1_agreement.mean);
  }
  fmt::print("weights     {} -> {}\n", format_bytes(static_cast<double>(weight_bytes(model))),
             format_bytes(static_cast<double>(weight_bytes(result.model))));
  fmt::print("written to {} ({})\n", flags.out, format_bytes(static_cast<double>(bytes_on_disk(flags.out))));
  return Exit::done;
}

}  // namespace

void add_convert(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<ConvertFlags>();
  CLI::App* verb = add_verb(program, command, "convert", "write a model in another format, or in fewer bits");
  verb->add_option("IN", flags->in, "model: a directory of Hugging Face's, .gguf, .safetensors, .bin")->required();
  verb->add_option("OUT", flags->out, "a file ending in .gguf, or a directory of Hugging Face's")->required();
  std::string types;
  for (const std::string& name : recipe_names()) types += (types.empty() ? "" : " ") + name;
  verb->add_option("--type", flags->type, "number format of the matrices (default: as they are): " + types);
  verb->add_option("--calibrate", flags->calibrate, "text whose activations say which errors matter");
  verb->add_option("--calibration-tokens", flags->calibration.tokens, "at most so many tokens of it, 0: all")
      ->check(in_range(0, i64{1} << 40))
      ->capture_default_str();
  verb->add_option("--data", flags->data, "text for the perplexity before and after; several may be given")
      ->allow_extra_args(false);
  flags->protocol = "llama.cpp";
  add_window_flags(verb, *flags);
  verb->add_option("--backend", flags->backend, "cpu, or the slow and simple reference")->capture_default_str();
  add_example(verb, "sparsam convert model model-q4.gguf --type q4_k_m --calibrate sample.txt --data held-out.txt");
  on_chosen(verb, command, [flags, &command] { return convert(*flags, command.common); });
}

}  // namespace sparsam
