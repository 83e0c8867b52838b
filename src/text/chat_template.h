// Chat templates: the part of Jinja that published models' templates use, as Hugging Face's apply_chat_template()
// renders it. A template computes on texts, numbers, lists and dictionaries and reaches nothing else.
//   tags        if elif else, for (with if and else; loop.index, first, last, ...), break, continue, macro, set
//               (a value, a block, several names, an attribute of a namespace()), generation; the signs - and +
//   operators   + - * / // % ** ~, comparisons also chained, in, and or not, a if b else c, [i] and slices
//   the rest    filters, tests, methods and functions: the lists in text/jinja_functions.cpp
// Differs from Jinja: tuples are lists, letter cases are ASCII's, and what is not listed is refused by name and line.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "formats/json.h"

namespace sparsam {

struct ChatMessage {
  std::string role, content;  // "system", "user", "assistant"
};

// What a template may need beside the messages.
struct ChatOptions {
  bool add_generation_prompt = true;              // end where the assistant begins to speak
  std::optional<std::string> bos = {}, eos = {};  // the texts of those tokens, where the tokenizer has them
};

namespace jinja {
struct Node;
}

// Immutable and cheap to copy; all threads may use one.
class ChatTemplate {
 public:
  static constexpr i64 most_work = i64{1} << 25;  // a second or less

  // `where` heads the errors, here and in rendering. Errors: syntax; a tag, filter, test or method outside the subset.
  static ChatTemplate parse(std::string_view text, std::string_view where);

  // The prompt as text, with its special tokens as texts. Errors: what the template refuses (raise_exception), or does
  // that is not supported; more than `work` steps, plus 64 for each byte and value of the input.
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;
  // The same with any variables: an object with "messages", "tools", "bos_token", ...
  std::string render(const Json& variables, i64 work = most_work) const;

 private:
  std::string where_;
  std::shared_ptr<const jinja::Node> tree_;
};

}  // namespace sparsam
