// What verbs share that fit something to one text and judge it on another (sparsity, shrink).
#pragma once

#include "cli/common.h"
#include "measure/perplexity.h"

namespace sparsam {

struct HeldOutFlags {
  std::vector<std::string> calibrate, data;
  std::string protocol = "stride";
  i64 held_out_tokens = 16384;  // of each text; 0: all
  WindowOptions windows;
};
void add_held_out_flags(CLI::App* verb, HeldOutFlags& flags);  // --held-out-tokens, --protocol, --context, --stride

struct HeldOutTexts {
  std::vector<TokenText> calibration, held_out;
};
// What is fitted to the text that judges it would be judged too well: Error (usage) where a tenth of one stands in the
// other.
HeldOutTexts load_texts(const HeldOutFlags& flags, const Tokenizer& tokenizer);
WindowOptions windows_of(const HeldOutFlags& flags, const Config& config);
Perplexity held_out_perplexity(const Transformer& model, const Tokenizer& tokenizer,
                               const std::vector<TokenText>& held_out, const WindowOptions& windows);
std::vector<i32> joined(const std::vector<TokenText>& texts);

}  // namespace sparsam
