// The short depthwise convolutions of queries, keys and values, and what a session keeps of their inputs.
#pragma once

#include "model/execution.h"

namespace sparsam {

struct ConvolutionPast {
  Out<float, 3> q, k, v;  // (1, taps - 1, channels)  the last inputs
};

// x (N, channels) + conv(x); w is stored as one vector (channels taps). With `past`, the rows are new positions of one
// sequence; empty: whole sequences.
Out<float, 2> convolve(const Execution& e, const Matrix& w, In<float, 2> x, Out<float, 3> past);
// Returns dx; dw += its gradient.
Out<float, 2> convolve_backward(const Execution& e, const Matrix& w, const Out<float, 2>& dw, In<float, 2> x,
                                In<float, 2> dy);

}  // namespace sparsam
