// Embedding: a row of the table for each token (or position).
//   forward    y_n = table[token_n]
//   backward   dtable[token_n] += dy_n
#pragma once

#include "tensor/matrix.h"
#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct Embedding {
  static constexpr const char* name = "Embedding";
  Out<Real, 2> y;     // (N, C)
  In<i32, 1> tokens;  // (N)     each in [0, V): the caller has checked the data
  Matrix table;       // (V, C)  f32, bf16, f16 or quantised

  static void fields(auto&& f, auto&... op) { f("y", op.y...), f("tokens", op.tokens...), f("table", op.table...); }
  void validate() const { check_shape(y, {tokens.shape(0), table.cols}, "Embedding.y"); }
  i64 flops() const { return 0; }
};

template <class Real>
struct EmbeddingBackward {
  static constexpr const char* name = "EmbeddingBackward";
  Sum<Real, 2> dtable;  // (V, C)
  In<Real, 2> dy;       // (N, C)
  In<i32, 1> tokens;    // (N)

  static void fields(auto&& f, auto&... op) { f("dtable", op.dtable...), f("dy", op.dy...), f("tokens", op.tokens...); }
  void validate() const { check_shape(dy, {tokens.shape(0), dtable.shape(1)}, "EmbeddingBackward.dy"); }
  i64 flops() const { return dy.size(); }
};

}  // namespace generic

using Embedding = generic::Embedding<float>;
using EmbeddingBackward = generic::EmbeddingBackward<float>;

}  // namespace sparsam
