// How a text longer than a model's context is cut into windows that are processed on their own, and which tokens of
// each are scored. A number is comparable only with its protocol: the names are those of the tools that use them.
//   llama.cpp  windows of n tokens side by side, the remainder left out; of each the second half is scored, the tokens
//              at places n/2 + 1 to n - 1, so that each has at least n/2 + 1 before it (llama-perplexity). With a
//              tokenizer that begins texts with a token of its own, that token also replaces the first of each window.
//   stride     a window of n tokens moves by s; each token is scored once, in the first window that holds it, and has
//              at least n - s before it there (the sliding window in Hugging Face's guide to perplexity). The first
//              token of the text has no context and is not scored.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/transformer.h"

namespace sparsam {

enum class Protocol : u8 { llama_cpp, stride };
std::vector<std::string> protocol_names();           // "llama.cpp", "stride"
Protocol protocol_from_name(std::string_view name);  // Error (usage)

struct WindowOptions {
  Protocol protocol = Protocol::stride;
  i64 context = 0;          // n; 0: the model's, at most 2048
  i64 stride = 0;           // s; 0: n / 2
  i64 batch_tokens = 4096;  // about how many tokens go through the model at once
};
// The options with their defaults filled in for this model. Errors (usage): a context below 2 or longer than learned
// positions; a stride outside [1, n - 1].
WindowOptions resolve(const WindowOptions& options, const Config& config);
std::string describe(const WindowOptions& resolved);  // "stride: windows of 512 tokens moved by 256, ..."

// Tokens to score, and the one that a tokenizer puts before every text, if it does.
struct TokenText {
  std::vector<i32> tokens;  // without that one
  std::optional<i32> beginning;
  std::string name;  // for errors: the file
};

struct Window {
  i64 begin = 0, length = 0;  // tokens [begin, begin + length) go in
  i64 first_scored = 0;       // of these, tokens from this index on are scored; at least 1
  i64 scored() const { return length - first_scored; }
};

// A text with its beginning token, cut into windows. Error: too short to score anything.
struct WindowedText {
  std::vector<i32> tokens;
  std::vector<Window> windows;
  bool restart = false;  // the first token of each window is replaced by tokens[0]
};
WindowedText cut(const TokenText& text, const WindowOptions& resolved);

// Calls `consume` for the hidden states of every window, batches of equally long ones going through the model
// together: hidden (window.scored(), C) predicts targets (window.scored()), and both are valid during the call. Windows
// come in order. `models` run side by side: one hidden a model. `progress` gets the fraction done; it may be empty.
using ConsumeWindow =
    std::function<void(i64 window, std::span<const In<float, 2>> hidden, In<i32, 1> targets, Arena& arena)>;
void for_each_window(std::span<const Transformer* const> models, const WindowedText& text, i64 batch_tokens,
                     const ConsumeWindow& consume, const std::function<void(double)>& progress = {});

// For measures that read every token once: windows side by side, batches of equally long ones together, the last one
// perhaps shorter. Calls batch(tokens) for each; the ids are views into `tokens`.
void for_each_batch(std::span<const i32> tokens, i64 context, i64 batch_tokens,
                    const std::function<void(const Tokens&)>& batch, const std::function<void(double)>& progress = {});
// The window that --context means for this model: 0 is the model's own, at most 2048. Error (usage): below 1, or more
// than its learned positions.
i64 resolve_context(i64 context, const Config& config);

// The fraction of `text` that also stands in `other`: of its runs of 32 tokens, those that occur there.
double overlap(std::span<const i32> text, std::span<const i32> other);

}  // namespace sparsam
