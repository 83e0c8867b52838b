#include "text/pre_tokenizers.h"

#include <algorithm>

#include "base/error.h"
#include "text/splitter.h"

namespace sparsam {

const std::vector<PreTokenizer>& known_pre_tokenizers() {
  static const std::string gpt2(gpt2_pattern);
  // clang-format off
  static const std::vector<PreTokenizer> known = {
      {{"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling"},
       {gpt2}, false, false},
      {{"default"},
       {R"~([\p{P}\$\+<=>\^~\|]+)~", gpt2, R"~(\p{N}+)~", R"~([0-9][0-9][0-9])~"}, false, false},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
       {R"~((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, true, true},
      {{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"},
       {R"~((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, false, false},
      {{"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "grok-2", "solar-open"},
       {R"~((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, false, false},
      {{"qwen35"},
       {R"~((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, false, false},
      {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
       {R"~(\p{N})~", gpt2}, false, false},
      {{"falcon"},
       {R"~([\p{P}\$\+<=>\^~\|`]+)~", gpt2, R"~([0-9][0-9][0-9])~"}, false, false},
      {{"deepseek-llm"},
       {R"~([\r\n])~", R"~(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)~", R"~(\s?[!-/:-~！-／：-～‘-‟　-。]+)~", R"~(\s+$)~", R"~([一-龥ࠀ-一가-퟿]+)~", R"~(\p{N}+)~"}, false, false},
      {{"deepseek-coder"},
       {R"~([\r\n])~", R"~(\s?\p{L}+)~", R"~(\s?\p{P}+)~", R"~([一-龥ࠀ-一가-퟿]+)~", R"~(\p{N})~"}, false, false},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
       {R"~(\p{N}{1,3})~", R"~([一-龥぀-ゟ゠-ヿ]+)~", R"~([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, false, false},
      {{"poro-chat", "bloom", "gpt3-finnish"},
       {R"~( ?[^(\s|.,!?…。，、।۔،)]+)~"}, false, false},
      {{"viking"},
       {R"~( ?[^(\s|.,!?…。，、।۔،)]+)~", R"~(\p{N})~"}, false, false},
      {{"tekken"},
       {R"~([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, true, true},
      {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
       {R"~([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, false, false},
      {{"bailingmoe", "bailingmoe2", "llada-moe"},
       {R"~('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)~"}, false, false},
      {{"seed-coder"},
       {R"~((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, false, false},
      {{"chameleon"},
       {R"~(<sentinel:[0-9]+>)~", R"~((IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z)~", R"~(([\t\n]|    |  ))~", R"~(\p{N})~", R"~([\p{P}!-/:-@\[-`{-~])~", gpt2}, false, true},
      {{"minicpm5"},
       {R"~(\p{N}{1,3})~", R"~((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)~"}, true, false},
  };
  // clang-format on
  return known;
}

const PreTokenizer& pre_tokenizer_named(std::string_view name, std::string_view where) {
  std::vector<std::string> names;
  for (const PreTokenizer& known : known_pre_tokenizers()) {
    if (std::find(known.names.begin(), known.names.end(), name) != known.names.end()) return known;
    names.insert(names.end(), known.names.begin(), known.names.end());
  }
  fail_unknown("pre-tokenizer", name, names, where);
}

}  // namespace sparsam
