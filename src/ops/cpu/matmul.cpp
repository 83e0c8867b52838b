// Matmul: many rows by oneDNN, few (decoding) by a kernel that streams the weight once in its stored format.
#include "ops/matmul.h"

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/few_rows.h"
#include "ops/cpu/row_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/matmul.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Output columns [begin, end) of up to eight rows beginning with `first`. `scratch` holds a row of the weight.
void few_rows_kernel(const Matmul& op, i64 first, i64 rows, i64 begin, i64 end, float* scratch) {
  dot_weight_rows(op.x.slice(first, rows), op.w, op.bias, op.y.slice(first, rows), begin, end, scratch,
                  [](i64 j) { return j; });
}

// sums_j += x_0j + ... of `rows` rows: each block of rows is summed first, so that rounding errors grow slowly.
void add_column_sums(const float* x, i64 rows, i64 cols, i64 stride, float* sums) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  i64 j = 0;
  for (; j + lanes <= cols; j += lanes) {
    auto sum = hn::Zero(d);
    for (i64 i = 0; i < rows; ++i) sum = hn::Add(sum, hn::LoadU(d, x + i * stride + j));
    hn::StoreU(hn::Add(hn::LoadU(d, sums + j), sum), d, sums + j);
  }
  for (; j < cols; ++j) {
    float sum = 0.0f;
    for (i64 i = 0; i < rows; ++i) sum += x[i * stride + j];
    sums[j] += sum;
  }
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(few_rows_kernel);
HWY_EXPORT(add_column_sums);

namespace {

void multiply_few(const Matmul& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const View<float, 2> scratch = workspace.arena.allocate<float>(threads(), is_quantised(op.w.dtype) ? op.w.cols : 0);
  const auto kernel = HWY_DYNAMIC_DISPATCH(few_rows_kernel);
  const i64 grain = std::max<i64>(1, 16384 / op.w.cols);
  parallel_ranges(op.w.rows, grain, [&](int thread, i64 begin, i64 end) {
    for (i64 first = 0; first < op.x.shape(0); first += few)
      kernel(op, first, std::min(few, op.x.shape(0) - first), begin, end, scratch[thread].data());
  });
  workspace.arena.release(mark);
}

constexpr i64 summed_rows = 32;  // rows whose sum is formed first

}  // namespace

void run(const Matmul& op, Workspace& workspace) {
  if (op.x.shape(0) <= few) return multiply_few(op, workspace);
  multiply_rows({.x = op.x, .w = op.w, .transposed = true, .y = op.y, .bias = op.bias.data(), .compute = op.compute},
                workspace);
}

void run(const MatmulBackwardInput& op, Workspace& workspace) {
  multiply_rows({.x = op.dy, .w = op.w, .y = op.dx, .accumulate = true, .compute = op.compute}, workspace);
}

void run(const MatmulBackwardWeight& op, Workspace& workspace) {
  const auto column_sums = HWY_DYNAMIC_DISPATCH(add_column_sums);
  const i64 rows = op.dy.shape(0), out = op.dy.shape(1);
  if (!op.dbias.empty())
    parallel_ranges(out, 64, [&](int, i64 begin, i64 end) {
      for (i64 i = 0; i < rows; i += summed_rows)
        column_sums(op.dy.data() + i * out + begin, std::min(summed_rows, rows - i), end - begin, out,
                    op.dbias.data() + begin);
    });
  add_outer_product(op.dy, op.x, op.dw, op.compute, workspace);
}

}  // namespace sparsam::cpu
#endif
