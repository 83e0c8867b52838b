#include "text/chat_template.h"

#include "text/jinja_render.h"

namespace sparsam {

ChatTemplate ChatTemplate::parse(std::string_view text, std::string_view where) {
  ChatTemplate parsed;
  parsed.where_ = where;
  parsed.tree_ = std::make_shared<const jinja::Node>(jinja::parse(text, parsed.where_));
  return parsed;
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  Json list = Json::array();
  for (const ChatMessage& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  // Hugging Face gives the last two even where there are none.
  Json variables{{"messages", std::move(list)},
                 {"add_generation_prompt", options.add_generation_prompt},
                 {"tools", nullptr},
                 {"documents", nullptr}};
  if (options.bos) variables["bos_token"] = *options.bos;
  if (options.eos) variables["eos_token"] = *options.eos;
  return render(variables);
}

std::string ChatTemplate::render(const Json& variables, i64 work) const {
  constexpr i64 work_per_input = 64;
  check(variables.is_object(), "variables of a template that are no object");
  jinja::Runtime runtime{.where = where_, .work = std::numeric_limits<i64>::max()};
  jinja::Fields fields;
  for (const auto& [name, value] : variables.get_ref<const Json::object_t&>())
    fields.emplace_back(name, jinja::make_value(runtime, value));
  runtime.work = work + work_per_input * (std::numeric_limits<i64>::max() - runtime.work);
  return jinja::render(*tree_, std::move(fields), runtime);
}

}  // namespace sparsam
