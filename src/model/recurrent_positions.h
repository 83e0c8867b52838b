// Positions from a recurrence over the embeddings themselves, of each channel in log space (ops/log_recurrence.h):
//   x + log_recurrence(x Wp^T + b, x Wx^T + b)
#pragma once

#include "model/execution.h"

namespace sparsam {

struct RecurrentPositions {
  In<float, 2> x;                       // (N, C)
  Out<float, 2> coefficient, input, y;  // (N, C)
};

// Returns what is to be added to x (N, C). `state` (1, C) is a session's, or empty.
Out<float, 2> recurrent_positions_forward(const Execution& e, const Params<Matrix>& w, In<float, 2> x,
                                          RecurrentPositions& kept, Out<float, 2> state);
// dx, the gradient of the sum, becomes that of x; weight gradients are summed into dw.
void recurrent_positions_backward(const Execution& e, const Params<Matrix>& w, const Params<Out<float, 2>>& dw,
                                  const RecurrentPositions& kept, Out<float, 2> dx);

}  // namespace sparsam
