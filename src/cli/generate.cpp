// sparsam generate: continues a prompt.
#include "infer/generate.h"

#include <cstdio>

#include "base/interrupt.h"
#include "cli/common.h"
#include "infer/text_stream.h"
#include "measure/finite.h"
#include "text/chat_template.h"

namespace sparsam {

namespace {

struct GenerateFlags {
  ModelFlags model;
  std::string prompt, chat, system, cache = "f16";
  i64 context = 0;
  GenerateOptions options;
};

DType cache_dtype(const std::string& name) {
  const auto dtype = dtype_from_name(name);
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16)
    fail_unknown("type", name, std::vector<std::string>{"f32", "f16", "bf16"}, "--cache", Exit::usage);
  return *dtype;
}

// The prompt's tokens; a text begins with the tokenizer's token for that, or after the end of another.
std::vector<i32> prompt_tokens(const std::string& prompt, const Tokenizer& tokenizer) {
  std::vector<i32> tokens;
  if (tokenizer.beginning_of_text()) tokens.push_back(*tokenizer.beginning_of_text());
  tokenizer.encode(prompt, tokens);
  if (tokens.empty() && tokenizer.end_of_text()) tokens.push_back(*tokenizer.end_of_text());
  if (tokens.empty()) fail_usage("generate: --prompt is empty, and the tokenizer has no token that begins a text");
  return tokens;
}

// What a user says as the model's chat template puts it, up to where the assistant begins to speak.
std::string chat_prompt(const GenerateFlags& flags, const Tokenizer& tokenizer) {
  const std::string where = flags.model.path + ": chat template";
  if (!tokenizer.chat_template()) fail("{}: there is none; give the whole text with --prompt", where);
  const auto text_of = [&](std::optional<i32> id) {
    return id ? std::optional(std::string(tokenizer.bytes_of(*id))) : std::nullopt;
  };
  std::vector<ChatMessage> messages;
  if (!flags.system.empty()) messages.push_back({"system", flags.system});
  messages.push_back({"user", flags.chat});
  return ChatTemplate::parse(*tokenizer.chat_template(), where)
      .render(messages, {.bos = text_of(tokenizer.beginning_of_text()), .eos = text_of(tokenizer.end_of_text())});
}

std::string_view explain(GenerationEnd end) {
  switch (end) {
    case GenerationEnd::length:
      return "as many as asked for";
    case GenerationEnd::end_of_text:
      return "the text ended";
    case GenerationEnd::stop_string:
      return "a stop string came";
    case GenerationEnd::positions:
      return "the context is full";
    case GenerationEnd::callback:
      return "interrupted";
  }
  return {};
}

Exit run_generate(GenerateFlags flags, const Common& common) {
  flags.options.sampling.seed = common.seed;
  validate(flags.options.sampling);
  const DType cache = cache_dtype(flags.cache);
  const OpenModel open = open_model(flags.model);
  check_finite(open.model, open.path);
  const auto backend = make_backend(flags.model.backend);
  const bool chat = !flags.chat.empty();
  if (chat) flags.prompt = chat_prompt(flags, open.tokenizer);
  // A chat template writes the token that begins a text itself.
  const std::vector<i32> prompt =
      chat ? open.tokenizer.encode(flags.prompt) : prompt_tokens(flags.prompt, open.tokenizer);
  Session session(open.model, *backend, {.compute = open.compute, .cache = cache, .positions = flags.context});
  if (static_cast<i64>(prompt.size()) > session.positions())
    fail("generate: the prompt has {} tokens, more than the {} positions of the context", prompt.size(),
         session.positions());
  install_interrupt_handler();
  const auto show = [&](std::string_view text) {
    if (!common.json) {
      fmt::print("{}", text);
      std::fflush(stdout);
    }
    return !interrupted();
  };
  if (!chat) show(to_well_formed(flags.prompt));
  const Generation result = generate(session, open.tokenizer, prompt, flags.options, show);

  if (common.json) {
    print_json({{"prompt", to_well_formed(flags.prompt)},
                {"text", result.text},
                {"tokens", result.tokens},
                {"end", name_of(result.end)},
                {"prompt_tokens", result.prompt_tokens},
                {"prompt_tokens_per_second", result.prompt_tokens_per_second()},
                {"tokens_per_second", result.tokens_per_second()},
                {"cache_bytes", session.cache_bytes()},
                {"seed", common.seed}});
  } else {
    fmt::print("\n");
    std::fflush(stdout);
    if (!common.quiet) {
      fmt::print(stderr, "prompt {} tokens, {:.1f} tokens/s; generated {} tokens, {:.1f} tokens/s; {}\n",
                 result.prompt_tokens, result.prompt_tokens_per_second(), result.tokens.size(),
                 result.tokens_per_second(), explain(result.end));
    }
  }
  return interrupted() ? interrupt_exit_code() : Exit::done;
}

}  // namespace

void add_generate(CLI::App& program, Command& command) {
  const auto flags = std::make_shared<GenerateFlags>();
  Sampling& sampling = flags->options.sampling;
  sampling.temperature = 0.8;
  CLI::App* verb = add_verb(program, command, "generate", "continue a text");
  add_model_flags(verb, flags->model);
  CLI::Option* prompt = verb->add_option("--prompt", flags->prompt, "text to continue");
  CLI::Option* chat =
      verb->add_option("--chat", flags->chat, "what a user says, put as the model's chat template does");
  verb->add_option("--system", flags->system, "what the system message says, before that")->needs(chat);
  chat->excludes(prompt);
  verb->add_option("--tokens,-n", flags->options.tokens, "most tokens to generate")
      ->check(in_range(0, i64{1} << 40))
      ->capture_default_str();
  verb->add_option("--temperature", sampling.temperature, "0: always the most probable token")->capture_default_str();
  verb->add_option("--top-k", sampling.top_k, "only the k most probable, 0: all")->capture_default_str();
  verb->add_option("--top-p", sampling.top_p, "only the most probable that hold this mass")->capture_default_str();
  verb->add_option("--min-p", sampling.min_p, "only those at least this many times as probable as the first")
      ->capture_default_str();
  verb->add_option("--repetition-penalty", sampling.repetition_penalty, "above 1: recent tokens become less probable")
      ->capture_default_str();
  verb->add_option("--repetition-window", sampling.repetition_window, "how many recent tokens")->capture_default_str();
  verb->add_option("--stop", flags->options.stop, "end before this text; several may be given")
      ->allow_extra_args(false);
  verb->add_flag("--past-end", flags->options.past_end_of_text, "go on after the end-of-text token");
  verb->add_option("--cache", flags->cache, "number format of the key-value cache: f32, f16 or bf16")
      ->capture_default_str();
  verb->add_option("--context", flags->context, "most positions, prompt included (default: the model's)")
      ->check(in_range(1, i64{1} << 24));
  add_example(verb, "sparsam generate model --prompt 'One day' --tokens 100 --temperature 0.8 --top-p 0.95 --seed 1");
  on_chosen(verb, command, [flags, &command] { return run_generate(*flags, command.common); });
}

}  // namespace sparsam
