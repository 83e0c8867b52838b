// sparsam classify: the labels of texts.
#include <algorithm>

#include "cli/common.h"
#include "infer/text_stream.h"
#include "measure/classification.h"
#include "measure/finite.h"

namespace sparsam {

namespace {

struct ClassifyFlags {
  ModelFlags model;
  std::vector<std::string> texts, data;
  i64 batch_tokens = 4096;
};

std::vector<std::string> texts_of(const ClassifyFlags& flags) {
  std::vector<std::string> texts = flags.texts;
  for (const std::string& path : flags.data) {
    const std::string content = read_text(path);
    for (size_t begin = 0; begin < content.size();) {
      const size_t end = std::min(content.find('\n', begin), content.size());
      if (end > begin) texts.push_back(content.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  if (texts.empty()) fail_usage("classify: give --text or --data with a text");
  return texts;
}

Exit classify(const ClassifyFlags& flags, const Common& common) {
  const std::vector<std::string> texts = texts_of(flags);
  const OpenModel open = open_any_model(flags.model);
  const std::vector<std::string>& labels = open.model.config.labels;
  if (labels.empty()) fail("{}: has no labels; expected a classifier (train --task classify)", open.path);
  check_finite(open.model, open.path);
  const i64 context = resolve_context(0, open.model.config);
  LabelledTokens tokens;
  for (const std::string& text : texts) {
    tokens.texts.push_back(encode_for_classifier(text, open.tokenizer, context));
    tokens.labels.push_back(0);
    if (tokens.texts.back().empty()) fail_usage("classify: the text '{}' has no tokens", printable(text));
  }
  const auto backend = make_backend(flags.model.backend);
  const Transformer model(open.model, *backend, open.compute, context);
  const std::vector<std::vector<double>> all = class_probabilities(model, tokens, flags.batch_tokens);

  Json results = Json::array();
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t best = static_cast<size_t>(std::max_element(all[i].begin(), all[i].end()) - all[i].begin());
    if (!common.json) {
      fmt::print("{}\t{:.4f}\t{}\n", to_well_formed(labels[best]), all[i][best], to_well_formed(texts[i]));
      continue;
    }
    Json probabilities = Json::object();
    for (size_t c = 0; c < labels.size(); ++c) probabilities[labels[c]] = all[i][c];
    results.push_back({{"text", to_well_formed(texts[i])}, {"label", labels[best]}, {"probabilities", probabilities}});
  }
  if (common.json) print_json({{"texts", results}});
  return Exit::done;
}

}  // namespace

void add_classify(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<ClassifyFlags>();
  CLI::App* verb = add_verb(program, command, "classify", "labels of texts, by a classifier");
  add_model_flags(verb, flags->model);
  verb->add_option("--text", flags->texts, "text; several may be given")->allow_extra_args(false);
  verb->add_option("--data", flags->data, "file with a text on each line; several may be given, - is standard input")
      ->allow_extra_args(false);
  verb->add_option("--batch", flags->batch_tokens, "tokens that go through the model at once")
      ->check(in_range(1, i64{1} << 24))
      ->capture_default_str();
  add_example(verb, "sparsam classify sentiment --text 'a fine film' --text 'dull'");
  on_chosen(verb, command, [flags, &command] { return classify(*flags, command.common); });
}

}  // namespace sparsam
