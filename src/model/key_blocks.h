// Reading some of the keys of parameter tokens (config.h: TokenBlocks). A row x reads the blocks with the greatest
// product of x and their mean key; scores of the other tokens count as 0, but the norm is that of all, which the Gram
// matrix of the keys gives without them:
//   |K x|^2 = x^T G x = |R x|^2        G = K^T K = R^T R, R upper triangular (in, in)
// R needs in^2 / 2 numbers where K has P in; with it no rounding makes a norm negative. Keys that are no more than that
// are read.
#pragma once

#include <vector>

#include "model/execution.h"

namespace sparsam {

// Both are made from the keys and stored as they are, beside quantised ones in q8_0.
struct KeyBlocks {
  TokenBlocks blocks;
  Matrix means;              // (blocks, in)
  std::vector<Matrix> root;  // R by bands of rows, each from the column of its first row on; empty: keys are read
  bool active() const { return blocks.active(); }
  i64 bytes() const;  // of means and root
};

// Of tokens whose blocks are active. `few`: also the root, for rows that are few. Error: a key that is not finite.
KeyBlocks key_blocks(const ParameterTokens& tokens, const Matrix& keys, bool few, Backend& backend,
                     std::vector<Buffer>& buffers);

// Rows that are as long as those of all scores: x R^T (N, in), in the arena.
Out<float, 2> root_product(const Execution& e, const KeyBlocks& blocks, In<float, 2> x);

// Bytes of keys, values, means and root that decoding reads of a projection; without blocks all keys and values.
double token_bytes_read(const ParameterTokens& tokens, const TokenParams<Matrix>& w);

}  // namespace sparsam
