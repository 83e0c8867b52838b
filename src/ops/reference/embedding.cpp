#include "ops/reference/bounded.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

// y_n = table[token_n]
template <class Real>
void run(const generic::Embedding<Real>& op) {
  for (i64 n = 0; n < op.y.shape(0); ++n)
    for (i64 c = 0; c < op.y.shape(1); ++c) op.y(n, c) = op.table.template at<Real>(op.tokens[n], c);
}

// y_n = table[token_n]  ->  dtable[token_n] += dy_n
template <class Real>
void run(const generic::EmbeddingBackward<Real>& op) {
  for (i64 n = 0; n < op.dy.shape(0); ++n)
    for (i64 c = 0; c < op.dy.shape(1); ++c) op.dtable(op.tokens[n], c) += op.dy(n, c);
}

template void run(const generic::Embedding<float>&);
template void run(const generic::Embedding<double>&);
template void run(const generic::Embedding<Bounded>&);
template void run(const generic::EmbeddingBackward<float>&);
template void run(const generic::EmbeddingBackward<double>&);
template void run(const generic::EmbeddingBackward<Bounded>&);

}  // namespace sparsam::reference
