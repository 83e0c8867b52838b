#include "text/gguf_vocabulary.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "base/error.h"
#include "text/charsmap.h"
#include "text/pre_tokenizers.h"

namespace sparsam {
namespace {

constexpr i64 most_tokens = 1 << 24;

struct IdKey {
  const char* key;
  std::optional<i32> SpecialIds::*id;
};
constexpr std::array<IdKey, 7> id_keys = {
    {{"tokenizer.ggml.bos_token_id", &SpecialIds::bos},
     {"tokenizer.ggml.eos_token_id", &SpecialIds::eos},
     {"tokenizer.ggml.unknown_token_id", &SpecialIds::unk},
     {"tokenizer.ggml.padding_token_id", &SpecialIds::pad},
     {"tokenizer.ggml.seperator_token_id", &SpecialIds::sep},  // the format's word
     {"tokenizer.ggml.cls_token_id", &SpecialIds::cls},
     {"tokenizer.ggml.mask_token_id", &SpecialIds::mask}}};

// What llama.cpp takes for granted where the file is silent.
void set_defaults(Vocabulary& v, const std::string& where) {
  if (v.model == "gpt2") {
    v.add_bos = pre_tokenizer_named(v.pre, where).add_bos;
  } else if (v.model == "llama") {
    v.bos = 1, v.eos = 2, v.unk = 0;
    v.add_bos = v.add_space_prefix = true;
  } else if (v.model == "t5") {
    v.eos = 1, v.unk = 2, v.pad = 0;
    v.add_eos = v.add_space_prefix = true;
  } else if (v.model == "bert") {
    v.cls = 101, v.unk = 100, v.sep = 102, v.pad = 0, v.mask = 103;
  } else {
    fail_unknown("tokenizer", v.model, std::vector<std::string>{"gpt2", "llama", "t5", "bert"},
                 where + ": tokenizer.ggml.model");
  }
}

void read_lists(GgufFields& fields, Vocabulary& v) {
  v.tokens = fields.required<std::vector<std::string>>("tokenizer.ggml.tokens");
  const i64 count = static_cast<i64>(v.tokens.size());
  if (count == 0 || count > most_tokens)
    fail("{}: tokenizer.ggml.tokens: found {}, expected 1 to {}", fields.where(), count, most_tokens);
  for (i64 i = 0; i < count; ++i)
    if (v.tokens[i].empty()) v.tokens[i] = fmt::format("[EMPTY_{}]", i);
  const auto check_length = [&](const char* key, size_t length) {
    if (static_cast<i64>(length) != count)
      fail("{}: {}: found {} values, expected one for each of {} tokens", fields.where(), key, length, count);
  };
  v.types.assign(v.tokens.size(), TokenType::normal);
  if (fields.find("tokenizer.ggml.token_type") != nullptr) {
    const auto types = fields.required<std::vector<i64>>("tokenizer.ggml.token_type");
    check_length("tokenizer.ggml.token_type", types.size());
    for (i64 i = 0; i < count; ++i) {
      if (types[i] < 0 || types[i] > 6)
        fail("{}: tokenizer.ggml.token_type: token {} has type {}, expected 0 to 6", fields.where(), i, types[i]);
      v.types[i] = static_cast<TokenType>(std::max<i64>(types[i], 1));
    }
  }
  if (v.model == "llama" || v.model == "t5") {
    v.scores = fields.required<std::vector<float>>("tokenizer.ggml.scores");
    check_length("tokenizer.ggml.scores", v.scores.size());
    for (i64 i = 0; i < count; ++i)
      if (!std::isfinite(v.scores[i]))
        fail("{}: tokenizer.ggml.scores: token {} has {}", fields.where(), i, v.scores[i]);
  } else {
    fields.ignore("tokenizer.ggml.scores");
  }
  if (v.model == "gpt2") v.merges = fields.required<std::vector<std::string>>("tokenizer.ggml.merges");
}

void read_ids(GgufFields& fields, Vocabulary& v) {
  const i64 count = static_cast<i64>(v.tokens.size());
  for (const IdKey& key : id_keys) {
    std::optional<i32>& id = v.*key.id;
    if (fields.find(key.key) != nullptr)
      id = static_cast<i32>(fields.required<i64>(key.key, {.least = 0, .most = count - 1}));
    else if (id && *id >= count)
      id.reset();
  }
  v.add_bos = fields.or_default<bool>("tokenizer.ggml.add_bos_token", v.add_bos) && v.bos;
  v.add_eos = fields.or_default<bool>("tokenizer.ggml.add_eos_token", v.add_eos) && v.eos;
  v.add_space_prefix = fields.or_default<bool>("tokenizer.ggml.add_space_prefix", v.add_space_prefix);
}

}  // namespace

Vocabulary read_vocabulary(const GgufFile& file) {
  GgufFields fields(file);
  Vocabulary v{};
  v.model = fields.required<std::string>("tokenizer.ggml.model");
  v.pre = fields.or_default<std::string>("tokenizer.ggml.pre", "default");
  set_defaults(v, fields.where());
  read_lists(fields, v);
  read_ids(fields, v);
  v.remove_extra_whitespaces = fields.or_default<bool>("tokenizer.ggml.remove_extra_whitespaces", false);
  v.lowercase = fields.or_default<bool>("tokenizer.ggml.normalizer.lowercase", true);
  if (fields.find("tokenizer.ggml.precompiled_charsmap") != nullptr) {
    for (i64 byte : fields.required<std::vector<i64>>("tokenizer.ggml.precompiled_charsmap"))
      v.charsmap.push_back(static_cast<char>(byte));
    if (!v.charsmap.empty()) Charsmap(v.charsmap, fields.where() + ": tokenizer.ggml.precompiled_charsmap");
  }
  std::string name = fields.or_default<std::string>("general.name", "");
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  v.specials_take_space = name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
  return v;
}

std::optional<std::string> read_chat_template(const GgufFile& file) {
  return GgufFields(file).optional<std::string>("tokenizer.chat_template");
}

}  // namespace sparsam
