// Growing: parameter tokens are added beside those that a model has (TokenFormer: Wang et al. 2024, arXiv 2410.23168,
// section 3.3). Depth, width, heads and cache stay as they are; levers/{widen,deepen}.h grow those.
#pragma once

#include <string_view>
#include <vector>

#include "levers/growth.h"

namespace sparsam {

// How m new tokens begin beside n old ones.
enum class NewTokens : u8 {
  // Keys are 0, values drawn as in a new model, tau stays: new scores are 0, which change neither the norm nor the sum.
  // The function is the same, but for softmax, which is refused. At first only the new keys have gradients, as the
  // first factor of LoRA has.
  zero_keys,
  // Values are 0; keys are drawn so that K'^T K' = (m / n) K^T K, and tau^2 grows by (n + m) / n as published: for
  // every
  // input the norm grows by the same factor as tau. The function is the same; for l2_gelu alone, and m must be at least
  // the rank of K. At first the new keys have gradients through the norm alone.
  zero_values,
  // Keys and values are drawn at random under a mask of 0 (ops/token_scores.h), which training moves to 1 (--ramp), and
  // tau^2 with it to (n + m) / n of what it was (after MSG, Yao et al. 2023, arXiv 2305.02869). The function is the
  // same
  // as long as the mask is 0; for l2_gelu alone.
  ramp,
  // Keys and values are drawn as in a new model, tau^2 = n + m: what the authors' code does. Another function.
  published,
};

// How many tokens there are to be of each kind; 0: as many as there are. A layer without tokens of a kind gets none.
struct TokenTargets {
  i64 q = 0, k = 0, v = 0, o = 0, mlp = 0;
  bool operator==(const TokenTargets&) const = default;
};
// "attention:144,mlp:576", "v:96": attention is q, k, v and o. Error (usage) quoting the part that is wrong of what
// `flag` says.
TokenTargets parse_token_targets(std::string_view list, std::string_view flag = "--to-tokens");

// The description with as many tokens, tau as it was. Errors (usage): the model has no parameter tokens, or more of a
// kind than it is to have.
Config with_tokens(const Config& config, const TokenTargets& targets);
// The description with about `factor` times as many parameters, each kind of token by the same factor, in multiples of
// 8. Errors (usage): no parameter tokens; a factor that is not above 1.
Config with_parameters(const Config& config, double factor);

// The model with the tokens of `to`, which with_tokens() or with_parameters() made of its description; the same seed
// gives the same bits. Matrices that do not grow are shared, not copied; others keep their number format.
// ParameterTokens::old says how many there were. Errors: quantised tokens; a way that Theta or the number of tokens
// does not allow (above); a ramp that has not ended.
Model grow(const Model& model, const Config& to, NewTokens how, u64 seed, Numbers numbers = Numbers::weights);

}  // namespace sparsam
