// The generation loop: prompt in, text out as it comes.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "infer/sampler.h"
#include "infer/session.h"
#include "text/tokenizer.h"

namespace sparsam {

struct GenerateOptions {
  i64 tokens = 128;  // at most
  Sampling sampling = {};
  std::vector<std::string> stop = {};  // generation ends before the first of these in the generated text
  bool past_end_of_text = false;       // go on after the tokenizer's end-of-text token
};

enum class GenerationEnd : u8 { length, end_of_text, stop_string, positions, callback };
std::string_view name_of(GenerationEnd end);

struct Generation {
  std::string text;         // well-formed UTF-8, as emitted
  std::vector<i32> tokens;  // generated ones, with those of a stop string, without end of text
  GenerationEnd end = GenerationEnd::length;
  i64 prompt_tokens = 0;
  double prompt_seconds = 0, seconds = 0;  // of the prompt, of the generation
  double prompt_tokens_per_second() const { return static_cast<double>(prompt_tokens) / prompt_seconds; }
  // The first token comes out of the prompt's pass: the steps after it are what the time was spent on.
  double tokens_per_second() const { return seconds > 0 ? static_cast<double>(steps) / seconds : 0; }
  i64 steps = 0;  // forward passes of one token
};

// Receives text as soon as it is certain: whole characters, nothing of a stop string. Returns whether to go on.
using Emit = std::function<bool(std::string_view text)>;

// Continues `prompt` (at least one token), appended to what the session holds. Ends early, without an error, when the
// session's positions are used up. Errors: those of Session::prefill on the prompt, of candidates().
Generation generate(Session& session, const Tokenizer& tokenizer, std::span<const i32> prompt,
                    const GenerateOptions& options, const Emit& emit = {});

}  // namespace sparsam
