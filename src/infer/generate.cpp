#include "infer/generate.h"

#include <algorithm>

#include "base/clock.h"
#include "infer/text_stream.h"

namespace sparsam {

std::string_view name_of(GenerationEnd end) {
  constexpr std::string_view names[] = {"length", "end_of_text", "stop_string", "positions", "callback"};
  return names[static_cast<size_t>(end)];
}

Generation generate(Session& session, const Tokenizer& tokenizer, std::span<const i32> prompt,
                    const GenerateOptions& options, const Emit& emit) {
  Generation result;
  Sampler sampler(options.sampling);
  TextStream stream(options.stop);
  std::vector<i32> history(prompt.begin(), prompt.end());
  const auto say = [&](const std::string& text) {
    result.text += text;
    return text.empty() || !emit || emit(text);
  };

  // A model's table may be padded beyond its tokenizer: those ids have no text.
  const i64 vocab = std::min(session.model().config.vocab, tokenizer.vocab_size());
  result.prompt_tokens = static_cast<i64>(prompt.size());
  Stopwatch clock;
  In<float, 1> logits = session.prefill(prompt);
  result.prompt_seconds = clock.seconds();
  clock.restart();
  while (static_cast<i64>(result.tokens.size()) < options.tokens) {
    const i32 token = sampler.sample(logits.slice(0, vocab), history);
    if (token == tokenizer.end_of_text() && !options.past_end_of_text) {
      result.end = GenerationEnd::end_of_text;
      break;
    }
    history.push_back(token);
    result.tokens.push_back(token);
    const bool go_on = say(stream.feed(tokenizer.bytes_of(token)));
    if (stream.stopped() || !go_on) {
      result.end = stream.stopped() ? GenerationEnd::stop_string : GenerationEnd::callback;
      break;
    }
    if (static_cast<i64>(result.tokens.size()) == options.tokens) break;
    if (session.position() == session.positions()) {
      result.end = GenerationEnd::positions;
      break;
    }
    logits = session.step(token);
    ++result.steps;
  }
  if (!stream.stopped()) say(stream.finish());
  result.seconds = clock.seconds();
  return result;
}

}  // namespace sparsam
