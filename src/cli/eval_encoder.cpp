#include "cli/eval_encoder.h"

#include <cmath>

#include "base/clock.h"
#include "base/progress.h"
#include "infer/text_stream.h"
#include "measure/classification.h"
#include "measure/finite.h"
#include "measure/masking.h"

namespace sparsam {

namespace {

Json interval(const Estimate& e) { return Json::array({e.low, e.high}); }

struct Classified {
  std::string name;
  ClassifierScores scores;
};

Json scores_json(const ClassifierScores& s) {
  const Estimate accuracy = clustered_mean(s.right), nats = clustered_mean(s.nats);
  return {{"accuracy", accuracy.mean},
          {"accuracy_standard_error", accuracy.standard_error},
          {"accuracy_confidence_interval", interval(accuracy)},
          {"macro_f1", s.confusion.macro_f1()},
          {"cross_entropy", nats.mean},
          {"cross_entropy_standard_error", nats.standard_error},
          {"texts", s.confusion.count()}};
}

Json confusion_json(const ConfusionMatrix& confusion, const std::vector<std::string>& labels) {
  Json classes = Json::array();
  for (i64 i = 0; i < confusion.classes(); ++i) {
    Json predicted = Json::array();
    i64 texts = 0;
    for (i64 j = 0; j < confusion.classes(); ++j) predicted.push_back(confusion.at(i, j)), texts += confusion.at(i, j);
    classes.push_back({{"label", to_well_formed(labels[static_cast<size_t>(i)])},
                       {"texts", texts},
                       {"f1", confusion.f1(i)},
                       {"predicted_as", predicted}});
  }
  return classes;
}

void print_scores(const std::vector<Classified>& results) {
  size_t width = 4;
  for (const Classified& r : results) width = std::max(width, r.name.size());
  fmt::print("{:<{}}  {:>7}  {:>22}  {:>8}  {}\n", "text", width, "texts", "accuracy", "macro F1", "cross-entropy");
  for (const auto& [name, s] : results) {
    const Estimate accuracy = clustered_mean(s.right), nats = clustered_mean(s.nats);
    fmt::print("{:<{}}  {:>7}  {:>9.2f} % +- {:>5.2f} %  {:>8.4f}  {:.4f} +- {:.4f} nats\n", to_well_formed(name),
               width, s.confusion.count(), 100 * accuracy.mean, 100 * accuracy.standard_error, s.confusion.macro_f1(),
               nats.mean, nats.standard_error);
  }
}

Exit eval_classifier(const OpenModel& open, const Transformer& model, const EncoderEval& flags, i64 context,
                     const Common& common) {
  const std::vector<std::string>& labels = open.model.config.labels;
  ClassifierScores all{ConfusionMatrix(static_cast<i64>(labels.size()))};
  std::vector<Classified> results;
  for (const std::string& path : flags.data) {
    const auto texts = read_labelled_texts(read_text(path), path);
    if (texts.empty()) fail("{}: no labelled texts", path);
    const LabelledTokens tokens = encode_labelled(texts, labels, open.tokenizer, context, path);
    Progress progress("eval " + path, common.quiet);
    results.push_back(
        {path, measure_classifier(model, tokens, flags.batch_tokens, [&](double part) { progress.update(part, ""); })});
    all.add(results.back().scores);
  }
  if (common.json) {
    Json json = scores_json(all);
    json["classes"] = confusion_json(all.confusion, labels);
    json["context"] = context;
    json["precision"] = name_of(open.compute);
    json["files"] = Json::array();
    for (const auto& [name, scores] : results) {
      Json file{{"file", to_well_formed(name)}};
      file.update(scores_json(scores));
      json["files"].push_back(file);
    }
    print_json(json);
    return Exit::done;
  }
  if (results.size() > 1) results.push_back({"all", all});
  print_scores(results);
  return Exit::done;
}

Json masked_json(const std::vector<Cluster>& windows) {
  const Estimate nats = clustered_mean(windows);
  i64 tokens = 0;
  for (const Cluster& window : windows) tokens += window.count;
  return {{"masked_perplexity", std::exp(nats.mean)},
          {"nats_per_token", nats.mean},
          {"standard_error", nats.standard_error},
          {"confidence_interval", Json::array({std::exp(nats.low), std::exp(nats.high)})},
          {"tokens", tokens},
          {"windows", windows.size()}};
}

Exit eval_masked(const OpenModel& open, const Transformer& model, const EncoderEval& flags, i64 context,
                 const Common& common) {
  const Masking masking = masking_of(open.tokenizer, flags.mask, open.path);
  const std::string protocol = fmt::format(
      "windows of {} tokens side by side, {:g} % of the tokens predicted: 80 % of them masked, 10 % "
      "replaced, 10 % left; seed {}",
      context, 100 * flags.mask, common.seed);
  std::vector<Cluster> all;
  Json files = Json::array();
  for (const std::string& path : flags.data) {
    const TokenText text = load_text(path, open.tokenizer);
    Progress progress("eval " + path, common.quiet);
    const std::vector<Cluster> windows =
        measure_masked(model, text.tokens, masking, common.seed, context, flags.batch_tokens,
                       [&](double part) { progress.update(part, ""); });
    if (windows.empty()) fail("{}: none of its {} tokens was hidden: give more text", path, text.tokens.size());
    Json file{{"file", to_well_formed(path)}};
    file.update(masked_json(windows));
    files.push_back(file);
    all.insert(all.end(), windows.begin(), windows.end());
  }
  Json json = masked_json(all);
  if (common.json) {
    json["protocol"] = protocol;
    json["context"] = context;
    json["precision"] = name_of(open.compute);
    json["files"] = files;
    print_json(json);
    return Exit::done;
  }
  fmt::print("{}\n", protocol);
  if (files.size() > 1) {
    json["file"] = "all";
    files.push_back(json);
  }
  for (const Json& file : files)
    fmt::print("{}: masked perplexity {:.4f}, {:.4f} +- {:.4f} nats a token, {} predicted tokens\n",
               file["file"].get<std::string>(), file["masked_perplexity"].get<double>(),
               file["nats_per_token"].get<double>(), file["standard_error"].get<double>(), file["tokens"].get<i64>());
  return Exit::done;
}

}  // namespace

Exit eval_encoder(const OpenModel& open, const EncoderEval& flags, const Common& common) {
  check_finite(open.model, open.path);
  const i64 context = resolve_context(flags.context, open.model.config);
  const auto backend = make_backend(flags.backend);
  const Transformer model(open.model, *backend, open.compute, context);
  return open.model.config.labels.empty() ? eval_masked(open, model, flags, context, common)
                                          : eval_classifier(open, model, flags, context, common);
}

}  // namespace sparsam
