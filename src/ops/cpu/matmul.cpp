// Matmul: many rows by oneDNN, few (decoding) by a kernel that streams the weight once in its stored format.
#include "ops/matmul.h"

#include "base/threads.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/row_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/matmul.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/blocks-inl.h"
#include "ops/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// y_n = x_n . w for n < Rows and one row w of the weight. The order of the sums depends on `cols` and the vector length
// alone. Unroll independent sums a row of x hide the latency of the additions.
template <int Rows, int Unroll, class Element>
HWY_INLINE void dot_rows(const float* x, i64 x_stride, const Element* w, i64 cols, float* sums) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  constexpr i64 ahead = 2048 / static_cast<i64>(sizeof(Element)), line = 64 / static_cast<i64>(sizeof(Element));
  V total[Rows][Unroll];
  for (auto& row : total)
    for (V& sum : row) sum = hn::Zero(d);
  i64 i = 0;
  for (; i + Unroll * lanes <= cols; i += Unroll * lanes) {
    for (i64 p = 0; p < Unroll * lanes; p += line) hwy::Prefetch(w + i + ahead + p);
    for (int u = 0; u < Unroll; ++u) {
      const V value = load(d, w + i + u * lanes);
      for (int n = 0; n < Rows; ++n)
        total[n][u] = hn::MulAdd(value, hn::LoadU(d, x + n * x_stride + i + u * lanes), total[n][u]);
    }
  }
  for (; i + lanes <= cols; i += lanes)
    for (int n = 0; n < Rows; ++n)
      total[n][0] = hn::MulAdd(load(d, w + i), hn::LoadU(d, x + n * x_stride + i), total[n][0]);
  for (int n = 0; n < Rows; ++n) {
    for (int u = 1; u < Unroll; ++u) total[n][0] = hn::Add(total[n][0], total[n][u]);
    sums[n] = hn::GetLane(hn::SumOfLanes(d, total[n][0]));
  }
  for (; i < cols; ++i)
    for (int n = 0; n < Rows; ++n) sums[n] += x[n * x_stride + i] * load_one(w + i);
}

// Output columns [begin, end); `w` is row `begin` of the weight.
template <int Rows, class Element>
void few_rows(const Matmul& op, const Element* w, i64 first, i64 begin, i64 end) {
  constexpr int unroll = Rows <= 2 ? 4 : 2;
  const i64 cols = op.w.cols, out = op.w.rows;
  for (i64 j = begin; j < end; ++j, w += cols) {
    float sums[Rows];
    dot_rows<Rows, unroll>(op.x.data() + first * cols, cols, w, cols, sums);
    for (int n = 0; n < Rows; ++n) op.y.data()[(first + n) * out + j] = sums[n] + (op.bias.empty() ? 0.0f : op.bias[j]);
  }
}

template <class Element>
void few_rows(const Matmul& op, const Element* w, i64 first, i64 rows, i64 begin, i64 end) {
  switch (rows) {
    case 1:
      return few_rows<1>(op, w, first, begin, end);
    case 2:
      return few_rows<2>(op, w, first, begin, end);
    case 3:
      return few_rows<3>(op, w, first, begin, end);
    case 4:
      return few_rows<4>(op, w, first, begin, end);
    case 5:
      return few_rows<5>(op, w, first, begin, end);
    case 6:
      return few_rows<6>(op, w, first, begin, end);
    case 7:
      return few_rows<7>(op, w, first, begin, end);
    default:
      return few_rows<8>(op, w, first, begin, end);
  }
}

// One row by a weight in blocks; `sums` holds as many floats as a row has groups.
void one_row_by_blocks(const Matmul& op, i64 first, i64 begin, i64 end, float* sums) {
  with_block(op.w.dtype, [&]<class Block>(Block) {
    const float* x = op.x[first].data();
    const i64 blocks = op.w.cols / block_size(Block::dtype);
    group_sums<Block>(x, blocks, sums);
    for (i64 j = begin; j < end; ++j)
      op.y(first, j) = dot_blocks(reinterpret_cast<const Block*>(op.w.row(j)), blocks, x, sums) +
                       (op.bias.empty() ? 0.0f : op.bias[j]);
  });
}

// Output columns [begin, end) of up to eight rows beginning with `first`. `scratch` holds a row of the weight.
void few_rows_kernel(const Matmul& op, i64 first, i64 rows, i64 begin, i64 end, float* scratch) {
  if (!is_quantised(op.w.dtype))
    return with_elements(op.w.bytes.data(), op.w.dtype,
                         [&](const auto* w) { few_rows(op, w + begin * op.w.cols, first, rows, begin, end); });
  if (rows == 1) return one_row_by_blocks(op, first, begin, end, scratch);
  const i64 cols = op.w.cols;
  for (i64 j = begin; j < end; ++j) {
    to_float(op.w.row(j), op.w.dtype, scratch, cols);
    few_rows(op, scratch, first, rows, j, j + 1);
  }
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

constexpr i64 few = 8;  // rows that the streaming kernel takes at a time, and from which on oneDNN is faster

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
