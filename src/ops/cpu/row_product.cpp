#include "ops/cpu/row_product.h"

#include <algorithm>
#include <vector>

#include "base/threads.h"
#include "ops/cpu/convert.h"

namespace sparsam::cpu {

namespace {

constexpr i64 packing_rows = 256;  // from which on a packed weight repays the packing

i64 round_up(i64 value, i64 multiple) { return (value + multiple - 1) / multiple * multiple; }

void add_to(float* y, const float* x, i64 n) {
  for (i64 i = 0; i < n; ++i) y[i] += x[i];
}

GemmOperand stored(const Matrix& w, bool transposed) {
  const GemmOperand as_is{w.bytes.data(), w.dtype, w.cols, 1};
  return transposed ? as_is.transposed() : as_is;
}

// `w` in another format, in the arena.
Matrix converted(const Matrix& w, DType dtype, Arena& arena) {
  if (dtype == DType::bf16) {
    const View<u16, 2> bf16 = arena.allocate<u16>(w.rows, w.cols);
    to_bf16_parallel(w.bytes.data(), w.dtype, bf16.data(), w.size());
    return {DType::bf16, w.rows, w.cols, std::as_bytes(bf16.span())};
  }
  const View<float, 2> f32 = arena.allocate<float>(w.rows, w.cols);
  to_float_parallel(w.bytes.data(), w.dtype, f32.data(), w.size());
  return as_matrix(f32);
}

// Each thread converts some rows of x, which then are in its cache, and multiplies them.
void multiply_rows_bf16(const RowProduct& p, const GemmOperand& b, Workspace& workspace) {
  const i64 rows = p.x.shape(0), k = p.x.shape(1), n = p.y.shape(1);
  const i64 part = part_size(rows, 256, 32);
  const View<u16, 3> scratch = workspace.arena.allocate<u16>(threads(), part, k);
  parallel_dynamic((rows + part - 1) / part, [&](int thread, i64 index) {
    const i64 begin = index * part, length = std::min(part, rows - begin);
    u16* x = scratch[thread].data();
    to_bf16(p.x.data() + begin * k, x, length * k);
    gemm({.m = length,
          .n = n,
          .k = k,
          .a = bf16_operand(x, k),
          .b = b,
          .c = p.y.data() + begin * n,
          .c_stride = n,
          .accumulate = p.accumulate,
          .bias = p.bias},
         workspace.gemms);
  });
}

// Few rows: the threads share the columns of y; each converts some rows of the weight, which then are in its cache.
void multiply_columns(const RowProduct& p, Workspace& workspace) {
  const i64 rows = p.x.shape(0), k = p.x.shape(1), n = p.y.shape(1);
  const DType dtype = factor_type(p.compute);
  GemmOperand a = operand(p.x.data(), k);
  if (dtype == DType::bf16) {
    u16* bf16 = workspace.arena.allocate<u16>(rows, k).data();
    to_bf16_parallel(p.x.data(), DType::f32, bf16, rows * k);
    a = bf16_operand(bf16, k);
  }
  const i64 part = part_size(n, 128, 16);
  const bool convert = p.w.dtype != dtype;
  const View<std::byte, 2> scratch =
      workspace.arena.allocate<std::byte>(threads(), convert ? part * k * size_of(dtype) : 0);
  const View<float, 3> tiles = workspace.arena.allocate<float>(threads(), rows, part);
  parallel_dynamic((n + part - 1) / part, [&](int thread, i64 index) {
    const i64 begin = index * part, length = std::min(part, n - begin);
    GemmOperand b = stored(p.w.slice(begin, length), true);
    if (convert) {
      std::byte* data = scratch[thread].data();
      if (dtype == DType::bf16)
        to_bf16(b.data, b.dtype, reinterpret_cast<u16*>(data), length * k);
      else
        to_float(b.data, b.dtype, reinterpret_cast<float*>(data), length * k);
      b.data = data, b.dtype = dtype;
    }
    float* tile = tiles[thread].data();  // contiguous: oneDNN writes into parts of rows slowly
    gemm({.m = rows,
          .n = length,
          .k = k,
          .a = a,
          .b = b,
          .c = tile,
          .c_stride = length,
          .bias = p.bias ? p.bias + begin : nullptr},
         workspace.gemms);
    for (i64 r = 0; r < rows; ++r) {
      float* y = p.y.data() + r * n + begin;
      if (p.accumulate)
        add_to(y, tile + r * length, length);
      else
        std::copy_n(tile + r * length, length, y);
    }
  });
}

}  // namespace

i64 part_size(i64 total, i64 largest, i64 multiple) {
  const i64 rounds = (total + largest * threads() - 1) / (largest * threads());
  return std::min(total, round_up((total + rounds * threads() - 1) / (rounds * threads()), multiple));
}

GemmOperand prepare_weight(const Matrix& w, bool transposed, i64 rows, Compute compute, Workspace& workspace) {
  const DType dtype = factor_type(compute);
  const bool packed = rows >= packing_rows;
  const bool packing_converts = packed && dtype == DType::bf16;
  const Matrix factor = w.dtype == dtype || packing_converts ? w : converted(w, dtype, workspace.arena);
  const GemmOperand b = stored(factor, transposed);
  const i64 k = transposed ? w.cols : w.rows, n = transposed ? w.rows : w.cols;
  return packed ? pack(b, k, n, dtype, workspace.arena, workspace.gemms) : b;
}

std::vector<GemmOperand> prepare_blocks(const Matrix& w, i64 block, bool transposed, i64 rows, Compute compute,
                                        Workspace& workspace) {
  const DType dtype = factor_type(compute);
  // In float32 the stored order is as fast as a packed one if its columns are read.
  const bool packed = rows >= packing_rows && !(transposed && w.dtype == DType::f32 && dtype == DType::f32);
  const i64 count = (w.rows + block - 1) / block;
  const auto k = [&](i64 length) { return transposed ? w.cols : length; };
  const auto n = [&](i64 length) { return transposed ? length : w.cols; };
  const i64 widest = std::min(block, w.rows);
  const i64 bytes = packed ? packed_bytes(k(widest), n(widest), dtype, workspace.gemms) : 0;
  const View<std::byte, 2> memory = workspace.arena.allocate<std::byte>(count, round_up(bytes, 64));
  const Matrix factor = w.dtype == dtype || packed ? w : converted(w, dtype, workspace.arena);
  std::vector<GemmOperand> blocks(static_cast<size_t>(count));
  parallel_dynamic(count, [&](int, i64 index) {
    const i64 length = std::min(block, w.rows - index * block);
    const GemmOperand b = stored(factor.slice(index * block, length), transposed);
    blocks[static_cast<size_t>(index)] =
        packed ? pack(b, k(length), n(length), dtype, memory[index].data(), workspace.gemms) : b;
  });
  return blocks;
}

void multiply_rows(const RowProduct& p, Workspace& workspace) {
  const i64 rows = p.x.shape(0), k = p.x.shape(1), n = p.y.shape(1);
  const Arena::Mark mark = workspace.arena.mark();
  if (rows < packing_rows && p.transposed) {
    multiply_columns(p, workspace);
  } else {
    const GemmOperand b = prepare_weight(p.w, p.transposed, rows, p.compute, workspace);
    if (p.compute == Compute::bf16)
      multiply_rows_bf16(p, b, workspace);
    else
      gemm({.m = rows,
            .n = n,
            .k = k,
            .a = operand(p.x.data(), k),
            .b = b,
            .c = p.y.data(),
            .c_stride = n,
            .accumulate = p.accumulate,
            .bias = p.bias},
           workspace.gemms);
  }
  workspace.arena.release(mark);
}

namespace {

// x (N, n) packed in blocks of rows and columns, small enough that products find them in the cache.
struct Blocks {
  i64 depth, width;                 // rows and columns of a block; the last ones have fewer
  i64 across;                       // blocks side by side
  std::vector<GemmOperand> blocks;  // row after row of blocks
};

Blocks pack_blocks(In<float, 2> x, i64 depth, i64 width, Workspace& workspace) {
  const i64 rows = x.shape(0), n = x.shape(1);
  const i64 down = (rows + depth - 1) / depth, across = (n + width - 1) / width;
  Blocks blocks{depth, width, across, std::vector<GemmOperand>(static_cast<size_t>(down * across))};
  const i64 bytes = packed_bytes(std::min(depth, rows), std::min(width, n), DType::bf16, workspace.gemms);
  const View<std::byte, 2> memory = workspace.arena.allocate<std::byte>(down * across, round_up(bytes, 64));
  parallel_dynamic(down * across, [&](int, i64 index) {
    const i64 i = index / across * depth, j = index % across * width;
    blocks.blocks[static_cast<size_t>(index)] =
        pack(operand(x.data() + i * n + j, n), std::min(depth, rows - i), std::min(width, n - j), DType::bf16,
             memory[index].data(), workspace.gemms);
  });
  return blocks;
}

// Each thread transposes some columns of dy, multiplies them, and adds the sum to dw at last: everything but x and dw
// stays in its cache.
void add_outer_product_bf16(In<float, 2> dy, In<float, 2> x, Out<float, 2> dw, Workspace& workspace) {
  const i64 rows = dy.shape(0), m = dy.shape(1), n = x.shape(1);
  const i64 depth = std::min<i64>(rows, 544);  // not a power of two: rows of dy^T must not share the cache's sets
  const Blocks b = pack_blocks(x, depth, round_up((n + (n - 1) / 1024) / ((n - 1) / 1024 + 1), 64), workspace);
  const i64 part = part_size(m, 384, 32), down = (rows + depth - 1) / depth;
  const View<u16, 4> columns = workspace.arena.allocate<u16>(threads(), down, part, depth);
  const View<float, 3> sums = workspace.arena.allocate<float>(threads(), part, b.width);
  parallel_dynamic((m + part - 1) / part, [&](int thread, i64 index) {
    const i64 begin = index * part, length = std::min(part, m - begin);
    const View<u16, 3> a = columns[thread];
    const auto depth_of = [&](i64 i) { return std::min(depth, rows - i * depth); };
    for (i64 i = 0; i < down; ++i)
      transpose_to_bf16(dy.data() + i * depth * m + begin, depth_of(i), length, m, a[i].data(), depth_of(i));
    for (i64 j = 0; j < b.across; ++j) {
      const i64 width = std::min(b.width, n - j * b.width);
      float* sum = sums[thread].data();
      for (i64 i = 0; i < down; ++i)
        gemm({.m = length,
              .n = width,
              .k = depth_of(i),
              .a = bf16_operand(a[i].data(), depth_of(i)),
              .b = b.blocks[static_cast<size_t>(i * b.across + j)],
              .c = sum,
              .c_stride = width,
              .accumulate = i > 0},
             workspace.gemms);
      for (i64 r = 0; r < length; ++r) add_to(dw.data() + (begin + r) * n + j * b.width, sum + r * width, width);
    }
  });
}

}  // namespace

void add_outer_product(In<float, 2> dy, In<float, 2> x, Out<float, 2> dw, Compute compute, Workspace& workspace) {
  const i64 rows = dy.shape(0), m = dy.shape(1), n = x.shape(1);
  const Arena::Mark mark = workspace.arena.mark();
  if (compute == Compute::bf16) {
    add_outer_product_bf16(dy, x, dw, workspace);
  } else {
    const GemmOperand b = pack(operand(x.data(), n), rows, n, DType::f32, workspace.arena, workspace.gemms);
    gemm({.m = m,
          .n = n,
          .k = rows,
          .a = operand(dy.data(), m).transposed(),
          .b = b,
          .c = dw.data(),
          .c_stride = n,
          .accumulate = true},
         workspace.gemms);
  }
  workspace.arena.release(mark);
}

}  // namespace sparsam::cpu
