// A linear recurrence of each channel, in log space, with coefficients in (0, 1) and positive inputs: positions for
// models that have no others (Heinsen 2023, arXiv 2311.06281; as the position embedding of the language model published
// with arXiv 2404.05843). The sum of position p carries the past: it differs wherever a token stands.
//   forward    l_t = log sigmoid(c_t)       y_t = log(exp(l_t + y_{t-1}) + exp(x_t))       y_0 = 0, or the state
//   backward   D_t = dy_t + w_{t+1} D_{t+1}              w_t = exp(l_t + y_{t-1} - y_t)
//              dx_t = exp(x_t - y_t) D_t                 dc_t = sigmoid(-c_t) w_t D_t       (without a state)
#pragma once

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct LogRecurrence {
  static constexpr const char* name = "LogRecurrence";
  Out<Real, 3> y;              // (B, T, C)
  In<Real, 3> coefficient, x;  // (B, T, C)  logits c of the coefficients; logarithms of the inputs
  InOut<Real, 2> state = {};   // (B, C)     y before the first position, then after the last; empty: 0

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("coefficient", op.coefficient...), f("x", op.x...), f("state", op.state...);
  }
  void validate() const {
    check_shape(coefficient, y.shape(), "LogRecurrence.coefficient");
    check_shape(x, y.shape(), "LogRecurrence.x");
    check_optional_shape(state, {y.shape(0), y.shape(2)}, "LogRecurrence.state");
  }
  i64 flops() const { return 30 * y.size(); }
};

template <class Real>
struct LogRecurrenceBackward {
  static constexpr const char* name = "LogRecurrenceBackward";
  Out<Real, 3> dcoefficient, dx;  // (B, T, C)  overwritten
  In<Real, 3> dy, y;              // (B, T, C)
  In<Real, 3> coefficient, x;

  static void fields(auto&& f, auto&... op) {
    f("dcoefficient", op.dcoefficient...), f("dx", op.dx...), f("dy", op.dy...), f("y", op.y...);
    f("coefficient", op.coefficient...), f("x", op.x...);
  }
  void validate() const {
    check_shape(dcoefficient, y.shape(), "LogRecurrenceBackward.dcoefficient");
    check_shape(dx, y.shape(), "LogRecurrenceBackward.dx");
    check_shape(dy, y.shape(), "LogRecurrenceBackward.dy");
    check_shape(coefficient, y.shape(), "LogRecurrenceBackward.coefficient");
    check_shape(x, y.shape(), "LogRecurrenceBackward.x");
  }
  i64 flops() const { return 40 * y.size(); }
};

}  // namespace generic

using LogRecurrence = generic::LogRecurrence<float>;
using LogRecurrenceBackward = generic::LogRecurrenceBackward<float>;

}  // namespace sparsam
