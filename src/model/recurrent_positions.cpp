#include "model/recurrent_positions.h"

namespace sparsam {

Out<float, 2> recurrent_positions_forward(const Execution& e, const Params<Matrix>& w, In<float, 2> x,
                                          RecurrentPositions& kept, Out<float, 2> state) {
  const i64 B = e.sequences, T = e.length, C = x.shape(1);
  kept.x = x;
  kept.coefficient = linear_forward(e, w.position_coefficient, x);
  kept.input = linear_forward(e, w.position_input, x);
  kept.y = e.arena.allocate<float>(B * T, C);
  e.backend.run(LogRecurrence{.y = kept.y.as(B, T, C),
                              .coefficient = kept.coefficient.as(B, T, C),
                              .x = kept.input.as(B, T, C),
                              .state = state});
  return kept.y;
}

void recurrent_positions_backward(const Execution& e, const Params<Matrix>& w, const Params<Out<float, 2>>& dw,
                                  const RecurrentPositions& kept, Out<float, 2> dx) {
  const i64 B = e.sequences, T = e.length, C = dx.shape(1);
  const auto dcoefficient = e.arena.allocate<float>(B * T, C), dinput = e.arena.allocate<float>(B * T, C);
  e.backend.run(LogRecurrenceBackward{.dcoefficient = dcoefficient.as(B, T, C),
                                      .dx = dinput.as(B, T, C),
                                      .dy = dx.as(B, T, C),
                                      .y = kept.y.as(B, T, C),
                                      .coefficient = kept.coefficient.as(B, T, C),
                                      .x = kept.input.as(B, T, C)});
  linear_backward(e, w.position_coefficient, dw.position_coefficient, kept.x, dcoefficient, dx);
  linear_backward(e, w.position_input, dw.position_input, kept.x, dinput, dx);
}

}  // namespace sparsam
