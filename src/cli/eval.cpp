// sparsam eval: perplexity and bits per byte, and the divergence from a base model.
#include <optional>

#include "base/progress.h"
#include "cli/eval_encoder.h"
#include "cli/held_out.h"
#include "infer/text_stream.h"
#include "measure/divergence.h"
#include "measure/finite.h"

namespace sparsam {

namespace {

struct EvalFlags : WindowFlags {
  ModelFlags model;
  std::vector<std::string> data;
  std::string against;
  double mask = 0.15;
};

struct TextResult {
  std::string name;
  Perplexity perplexity;
};

Json interval(double low, double high) { return Json::array({low, high}); }

// Numbers that do not exist (the error of a single window) are null.
Json perplexity_json(const Perplexity& p) {
  return {{"perplexity", p.perplexity},
          {"bits_per_byte", p.bits_per_byte},
          {"tokens", p.tokens},
          {"bytes", p.bytes},
          {"nats_per_token", p.nats_per_token.mean},
          {"standard_error", p.nats_per_token.standard_error},
          {"confidence_interval", interval(p.low, p.high)},
          {"windows", p.windows},
          {"seconds", p.seconds}};
}

Json divergence_json(const Divergence& d) {
  return {{"kl", d.kl.mean},
          {"kl_standard_error", d.kl.standard_error},
          {"kl_confidence_interval", interval(d.kl.low, d.kl.high)},
          {"kl_median", d.kl_median},
          {"kl_90", d.kl_90},
          {"kl_99", d.kl_99},
          {"kl_max", d.kl_max},
          {"top1_agreement", d.top1_agreement.mean},
          {"top1_agreement_confidence_interval", interval(d.top1_agreement.low, d.top1_agreement.high)},
          {"base_perplexity", d.base.perplexity},
          {"perplexity_change", d.other.perplexity - d.base.perplexity}};
}

// Two models can only be compared over the same tokens.
void check_same_vocabulary(const OpenModel& model, const OpenModel& base) {
  if (model.model.config.vocab != base.model.config.vocab)
    fail("{}: a vocabulary of {} tokens, but {} has {}; expected the same", base.path, base.model.config.vocab,
         model.path, model.model.config.vocab);
  if (model.tokenizer.to_json() == base.tokenizer.to_json()) return;
  if (model.tokenizer.vocab_size() != base.tokenizer.vocab_size())
    fail("{}: a tokenizer of {} tokens, but that of {} has {}; expected the same vocabulary", base.path,
         base.tokenizer.vocab_size(), model.path, model.tokenizer.vocab_size());
  for (i32 id = 0; id < model.tokenizer.vocab_size(); ++id)
    if (model.tokenizer.bytes_of(id) != base.tokenizer.bytes_of(id))
      fail("{}: token {} is '{}', but '{}' in {}; expected the same vocabulary", base.path, id,
           printable(base.tokenizer.bytes_of(id)), printable(model.tokenizer.bytes_of(id)), model.path);
}

void print_perplexities(const std::vector<TextResult>& results, const std::string& protocol) {
  fmt::print("{}\n", protocol);
  size_t width = 4;
  for (const TextResult& r : results) width = std::max(width, r.name.size());
  fmt::print("{:<{}}  {:>11}  {:>13}  {:>10}  {}\n", "text", width, "tokens", "bits per byte", "perplexity",
             "95 % interval (clustered by window)");
  for (const auto& [name, p] : results) {
    fmt::print("{:<{}}  {:>11}  {:>13.4f}  {:>10.4f}  ", name, width, format_count(static_cast<double>(p.tokens)),
               p.bits_per_byte, p.perplexity);
    if (p.windows > 1)
      fmt::print("{:.4f} to {:.4f}\n", p.low, p.high);
    else
      fmt::print("unknown: one window\n");
  }
}

void print_divergence(const Divergence& d, const std::string& base) {
  fmt::print("against {}:\n", base);
  fmt::print("  KL divergence     {:.6f} nats per token", d.kl.mean);
  if (d.base.windows > 1) fmt::print(" ({:.6f} to {:.6f})", d.kl.low, d.kl.high);
  fmt::print("; median {:.6f}, 90 % {:.6f}, 99 % {:.6f}, greatest {:.4f}\n", d.kl_median, d.kl_90, d.kl_99, d.kl_max);
  fmt::print("  top-1 agreement   {:.2f} %\n", 100 * d.top1_agreement.mean);
  fmt::print("  perplexity        {:.4f} -> {:.4f} ({:+.4f})\n", d.base.perplexity, d.other.perplexity,
             d.other.perplexity - d.base.perplexity);
}

Exit eval(const EvalFlags& flags, const Common& common) {
  const OpenModel open = open_any_model(flags.model);
  if (!is_language_model(open.model.config)) {
    if (!flags.against.empty() || flags.protocol != "stride" || flags.windows.stride > 0)
      fail_usage("eval: {} predicts no next token: leave out --against, --protocol and --stride", open.path);
    return eval_encoder(open,
                        {.data = flags.data,
                         .backend = flags.model.backend,
                         .context = flags.windows.context,
                         .batch_tokens = flags.windows.batch_tokens,
                         .mask = flags.mask},
                        common);
  }
  std::optional<OpenModel> base;
  if (!flags.against.empty()) {
    base = open_model({.path = flags.against, .precision = flags.model.precision});
    check_same_vocabulary(open, *base);
    check_finite(base->model, base->path);
  }
  check_finite(open.model, open.path);
  const WindowOptions windows = windows_of(flags, open.model.config);
  if (base) resolve(windows, base->model.config);
  const auto backend = make_backend(flags.model.backend);
  const Transformer model(open.model, *backend, open.compute, windows.context);
  std::optional<Transformer> base_model;
  if (base) base_model.emplace(base->model, *backend, base->compute, windows.context);

  std::vector<TextResult> results;
  Losses losses;
  Divergences divergences;
  for (const std::string& path : flags.data) {
    const TokenText text = load_text(path, open.tokenizer);
    Progress progress("eval " + path, common.quiet);
    const auto report = [&](double part) { progress.update(part, ""); };
    Losses of_text;
    if (base) {
      const Divergences of_both = measure_divergence(*base_model, model, open.tokenizer, text, windows, report);
      divergences.add(of_both);
      of_text = of_both.other;
    } else {
      of_text = measure_losses(model, open.tokenizer, text, windows, report);
    }
    results.push_back({path, summarize(of_text)});
    losses.add(of_text);
  }
  const Perplexity all = summarize(losses);

  if (common.json) {
    Json json = perplexity_json(all);
    json["interval_method"] = "95 %, Student's t, clustered by window";
    json["protocol"] = describe(windows);
    json["context"] = windows.context;
    json["precision"] = name_of(open.compute);
    if (base) json.update(divergence_json(summarize(divergences)));
    json["files"] = Json::array();
    for (const auto& [name, p] : results) {
      Json file{{"file", to_well_formed(name)}};
      file.update(perplexity_json(p));
      json["files"].push_back(file);
    }
    print_json(json);
    return Exit::done;
  }
  if (results.size() > 1) results.push_back({"all", all});
  print_perplexities(results, describe(windows));
  if (base) print_divergence(summarize(divergences), flags.against);
  return Exit::done;
}

}  // namespace

void add_eval(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<EvalFlags>();
  CLI::App* verb = add_verb(
      program, command, "eval",
      "perplexity and bits per byte of texts; divergence of two models; of a classifier accuracy and F1, of an "
      "encoder the perplexity of hidden tokens");
  add_model_flags(verb, flags->model);
  verb->add_option(
          "--data", flags->data,
          "text to score, for a classifier labelled (lines LABEL<TAB>TEXT, or .jsonl); several may be given, - "
          "is standard input")
      ->required()
      ->allow_extra_args(false);
  add_window_flags(verb, *flags);
  verb->add_option("--batch", flags->windows.batch_tokens, "tokens that go through the model at once")
      ->check(in_range(1, i64{1} << 24))
      ->capture_default_str();
  verb->add_option("--mask", flags->mask, "encoders: share of tokens that are hidden and predicted")
      ->check(CLI::Range(0.001, 0.999).description(""))
      ->capture_default_str();
  verb->add_option("--against", flags->against, "base model: divergence from it on the same text");
  add_example(verb, "sparsam eval thinned --data held-out.txt --against original");
  on_chosen(verb, command, [flags, &command] { return eval(*flags, command.common); });
}

}  // namespace sparsam
