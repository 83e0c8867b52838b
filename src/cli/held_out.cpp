#include "cli/held_out.h"

namespace sparsam {

namespace {

std::vector<TokenText> load(const std::vector<std::string>& paths, const Tokenizer& tokenizer) {
  std::vector<TokenText> texts;
  for (const std::string& path : paths) texts.push_back(load_text(path, tokenizer));
  return texts;
}

}  // namespace

void add_window_flags(CLI::App* verb, WindowFlags& flags) {
  verb->add_option(
          "--protocol", flags.protocol,
          "which tokens are scored, with how much before them: stride (each once, sliding window) or llama.cpp "
          "(second half of each window)")
      ->capture_default_str();
  verb->add_option("--context", flags.windows.context, "tokens of a window (default: the model's, at most 2048)")
      ->check(in_range(2, i64{1} << 24));
  verb->add_option("--stride", flags.windows.stride, "how far the window moves (default: half the context)")
      ->check(in_range(1, i64{1} << 24));
}

WindowOptions windows_of(const WindowFlags& flags, const Config& config) {
  WindowOptions windows = flags.windows;
  windows.protocol = protocol_from_name(flags.protocol);
  return resolve(windows, config);
}

void add_held_out_flags(CLI::App* verb, HeldOutFlags& flags) {
  verb->add_option("--held-out-tokens", flags.held_out_tokens, "most tokens of each --data to score, 0: all")
      ->check(in_range(0, i64{1} << 40))
      ->capture_default_str();
  add_window_flags(verb, flags);
}

HeldOutTexts load_texts(const HeldOutFlags& flags, const Tokenizer& tokenizer) {
  constexpr double most = 0.1;
  HeldOutTexts texts{load(flags.calibrate, tokenizer), load(flags.data, tokenizer)};
  for (TokenText& text : texts.held_out) {
    for (const TokenText& other : texts.calibration)
      if (const double part = overlap(text.tokens, other.tokens); part > most)
        fail_usage(
            "--data {}: {:.0f} % of it stands in --calibrate {} too; what is fitted to a text is judged on another",
            text.name, 100 * part, other.name);
    if (flags.held_out_tokens > 0 && static_cast<i64>(text.tokens.size()) > flags.held_out_tokens)
      text.tokens.resize(static_cast<size_t>(flags.held_out_tokens));
  }
  return texts;
}

Perplexity held_out_perplexity(const Transformer& model, const Tokenizer& tokenizer,
                               const std::vector<TokenText>& held_out, const WindowOptions& windows) {
  Losses losses;
  for (const TokenText& text : held_out) losses.add(measure_losses(model, tokenizer, text, windows));
  return summarize(losses);
}

std::vector<i32> joined(const std::vector<TokenText>& texts) {
  std::vector<i32> tokens;
  for (const TokenText& text : texts) tokens.insert(tokens.end(), text.tokens.begin(), text.tokens.end());
  return tokens;
}

}  // namespace sparsam
