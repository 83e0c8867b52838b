// Linear maps of heads: each head's weight and panels of rows in cache, multiplied in tiles.
#include <algorithm>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/log_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/head_linear.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"
#include "ops/cpu/small_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

constexpr i64 panel_rows = 64;

// Rows (rows, columns) that lie `stride` apart, to rows of whole vectors, and back.
HWY_INLINE void gather(const float* from, i64 stride, i64 rows, i64 columns, float* panel) {
  const i64 padded = padded_columns(columns);
  for (i64 i = 0; i < rows; ++i) {
    std::copy_n(from + i * stride, columns, panel + i * padded);
    std::fill_n(panel + i * padded + columns, padded - columns, 0.0f);
  }
}
HWY_INLINE void scatter(const float* panel, i64 rows, i64 columns, float* to, i64 stride) {
  for (i64 i = 0; i < rows; ++i) std::copy_n(panel + i * padded_columns(columns), columns, to + i * stride);
}

// memory: E f + panel_rows f, f = padded F
void head_linear(const HeadLinear& op, i64 h, float* memory) {
  const i64 rows = op.x.shape(0), heads = op.x.shape(1), E = op.x.shape(2), F = op.w.shape(1), f = padded_columns(F);
  constexpr i64 few = 4;  // rows for which it does not pay to turn the weight round
  if (rows <= few) {
    for (i64 n = 0; n < rows; ++n)
      for (i64 j = 0; j < F; ++j) {
        const float *w = &op.w(h, j, 0), *x = &op.x(n, h, 0);
        op.y(n, h, j) =
            sum_vectors(E, [&](auto d, i64 i) HWY_ATTR { return hn::Mul(hn::LoadU(d, w + i), hn::LoadU(d, x + i)); });
      }
    return;
  }
  float *weight = memory, *out = weight + E * f;
  transpose(&op.w(h, 0, 0), E, F, E, weight, f, f);
  for (i64 n = 0; n < rows; n += panel_rows) {
    const i64 size = std::min(panel_rows, rows - n);
    multiply({.m = size,
              .n = f,
              .k = E,
              .a = &op.x(n, h, 0),
              .a_row = heads * E,
              .a_col = 1,
              .b = weight,
              .b_stride = f,
              .c = out,
              .c_stride = f});
    scatter(out, size, F, &op.y(n, h, 0), heads * F);
  }
}

// memory: 2 (F + panel_rows) e, e = padded E
void head_linear_backward(const HeadLinearBackward& op, i64 h, float* memory) {
  const i64 rows = op.x.shape(0), heads = op.x.shape(1), E = op.x.shape(2), F = op.w.shape(1), e = padded_columns(E);
  float *weight = memory, *dweight = weight + F * e, *x = dweight + F * e, *dx = x + panel_rows * e;
  gather(&op.w(h, 0, 0), E, F, E, weight);
  std::fill_n(dweight, F * e, 0.0f);
  for (i64 n = 0; n < rows; n += panel_rows) {
    const i64 size = std::min(panel_rows, rows - n);
    multiply({.m = size,
              .n = e,
              .k = F,
              .a = &op.dy(n, h, 0),
              .a_row = heads * F,
              .a_col = 1,
              .b = weight,
              .b_stride = e,
              .c = dx,
              .c_stride = e});
    scatter(dx, size, E, &op.dx(n, h, 0), heads * E);
    gather(&op.x(n, h, 0), heads * E, size, E, x);
    multiply({.m = F,
              .n = e,
              .k = size,
              .a = &op.dy(n, h, 0),
              .a_row = 1,
              .a_col = heads * F,
              .b = x,
              .b_stride = e,
              .c = dweight,
              .c_stride = e,
              .accumulate = true});
  }
  for (i64 j = 0; j < F; ++j)
    for (i64 i = 0; i < E; ++i) op.dw(h, j, i) += dweight[j * e + i];
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(head_linear);
HWY_EXPORT(head_linear_backward);

namespace {

template <class O, class Kernel>
void run_heads(const O& op, i64 floats, Kernel kernel, Workspace& workspace) {
  constexpr i64 worth_a_thread = 1 << 17;  // products
  const Arena::Mark mark = workspace.arena.mark();
  const auto memory = workspace.arena.allocate<float>(threads(), floats);
  const i64 products = std::max<i64>(op.x.shape(0) * op.x.shape(2) * op.w.shape(1), 1);
  parallel_ranges(op.x.shape(1), std::max<i64>(1, worth_a_thread / products), [&](int thread, i64 begin, i64 end) {
    for (i64 h = begin; h < end; ++h) kernel(op, h, memory[thread].data());
  });
  workspace.arena.release(mark);
}

}  // namespace

void run(const HeadLinear& op, Workspace& workspace) {
  const i64 f = padded_columns(op.w.shape(1));
  run_heads(op, (op.x.shape(2) + 64) * f, HWY_DYNAMIC_DISPATCH(head_linear), workspace);
}
void run(const HeadLinearBackward& op, Workspace& workspace) {
  const i64 e = padded_columns(op.x.shape(2));
  run_heads(op, 2 * (op.w.shape(1) + 64) * e, HWY_DYNAMIC_DISPATCH(head_linear_backward), workspace);
}
}  // namespace sparsam::cpu
#endif
