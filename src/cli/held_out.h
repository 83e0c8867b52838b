// What verbs share that judge a model by the perplexity of a text, and what those do that fit something to another text
// (sparsity, shrink).
#pragma once

#include "cli/common.h"
#include "measure/perplexity.h"

namespace sparsam {

struct WindowFlags {
  std::string protocol = "stride";
  WindowOptions windows;
};
void add_window_flags(CLI::App* verb, WindowFlags& flags);  // --protocol, --context, --stride
WindowOptions windows_of(const WindowFlags& flags, const Config& config);

struct HeldOutFlags : WindowFlags {
  std::vector<std::string> calibrate, data;
  i64 held_out_tokens = 16384;  // of each text; 0: all
};
void add_held_out_flags(CLI::App* verb, HeldOutFlags& flags);  // --held-out-tokens and a window's

struct HeldOutTexts {
  std::vector<TokenText> calibration, held_out;
};
// What is fitted to the text that judges it would be judged too well: Error (usage) where a tenth of one stands in the
// other.
HeldOutTexts load_texts(const HeldOutFlags& flags, const Tokenizer& tokenizer);
Perplexity held_out_perplexity(const Transformer& model, const Tokenizer& tokenizer,
                               const std::vector<TokenText>& held_out, const WindowOptions& windows);
std::vector<i32> joined(const std::vector<TokenText>& texts);

}  // namespace sparsam
