// The linear head and its loss. The vocabulary is divided into blocks whose logits, for a chunk of rows, stay in a
// thread's cache: there they become e = exp(z - m) with m the largest of the block in the row. Once all blocks are
// done, log sum_v exp(z_v) = m' + log sum_blocks exp(m - m') sum_v e_v is known, and the backward has softmax(z)_v =
// e_v exp(m - lse) without computing logits or exponentials again.
#include "ops/cross_entropy.h"

#include <cmath>

#include "base/threads.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/row_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/cross_entropy.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/convert-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

inline float largest(const float* z, i64 n) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  auto m = hn::Set(d, z[0]);
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) m = hn::Max(m, hn::LoadU(d, z + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, m));
  for (; i < n; ++i) result = std::max(result, z[i]);
  return result;
}

// e = unit exp(z - m); returns the sum of exp(z - m). Without `e` only the sum.
template <class Element>
float exponentials(const float* z, i64 n, float m, float unit, Element* e) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  const auto shift = hn::Set(d, m), scale = hn::Set(d, unit);
  auto sum = hn::Zero(d);
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto value = exp(d, hn::Sub(hn::LoadU(d, z + i), shift));
    sum = hn::Add(sum, value);
    if (e) store(d, hn::Mul(value, scale), e + i);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) {
    const float value = std::exp(z[i] - m);
    total += value;
    if (e) store_one(value * unit, e + i);
  }
  return total;
}

// The logits z (rows, n) of one block; `largest_of` and `sums` of each row lie `stride` apart.
void exponentials_kernel(const float* z, i64 rows, i64 n, float* largest_of, float* sums, i64 stride, float unit,
                         DType dtype, void* e) {
  for (i64 r = 0; r < rows; ++r) {
    const float m = largest_of[r * stride] = largest(z + r * n, n);
    float& sum = sums[r * stride];
    if (dtype == DType::f16)
      sum = exponentials(z + r * n, n, m, unit, e ? static_cast<F16*>(e) + r * n : nullptr);
    else
      sum = exponentials(z + r * n, n, m, unit, e ? static_cast<float*>(e) + r * n : nullptr);
  }
}

template <class From, class To>
void scaled(const From* e, i64 n, float factor, To* y) {
  const hn::ScalableTag<float> d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) store(d, hn::Mul(load(d, e + i), f), y + i);
  for (; i < n; ++i) store_one(load_one(e + i) * factor, y + i);
}

// dz = e factor: from f16 to bf16, or in float32.
void scaled_kernel(const void* e, DType dtype, i64 n, float factor, void* dz) {
  if (dtype == DType::f16)
    scaled(static_cast<const F16*>(e), n, factor, static_cast<Bf16*>(dz));
  else
    scaled(static_cast<const float*>(e), n, factor, static_cast<float*>(dz));
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(exponentials_kernel);
HWY_EXPORT(scaled_kernel);

namespace {

constexpr i64 block_columns = 512;
constexpr i64 cached_rows = 256;             // rows whose logits of a block are made at once
constexpr i64 chunk_bytes = i64{100} << 20;  // of the exponentials that are kept for the backward
constexpr float f16_unit = 32768.0f;         // so that f16 keeps e down to 2^-29 with all its digits
constexpr i64 deepest = 544;                 // rows in one sum of dhead: see row_product.cpp

// What is fixed for all chunks of rows.
struct Plan {
  In<float, 2> x;
  Matrix head;
  In<i32, 1> targets;
  Out<float, 1> loss;
  Compute compute;
  i64 block, blocks, chunk;
  DType kept;  // format of the exponentials
  std::vector<GemmOperand> logit_factors;

  i64 width(i64 index) const { return std::min(block, head.rows - index * block); }
};

template <class O>
Plan plan(const O& op, Workspace& workspace) {
  Plan p{op.x, op.head, op.targets, op.loss, op.compute, 0, 0, 0, DType::f32, {}};
  p.block = part_size(p.head.rows, block_columns, 64);
  p.blocks = (p.head.rows + p.block - 1) / p.block;
  p.kept = p.compute == Compute::bf16 ? DType::f16 : DType::f32;
  const i64 fitting = chunk_bytes / (p.head.rows * size_of(p.kept)) / cached_rows * cached_rows;
  p.chunk = std::min(p.x.shape(0), std::clamp<i64>(fitting, cached_rows, 4 * cached_rows));
  p.logit_factors = prepare_blocks(p.head, p.block, true, p.x.shape(0), p.compute, workspace);
  return p;
}

// Of one chunk of rows.
struct Chunk {
  i64 first, rows;
  GemmOperand x;
  View<float, 2> largest, sums;     // (rows, blocks)
  View<float, 1> target_logits;     // (rows)
  View<std::byte, 1> exponentials;  // block after block, each (rows, width); empty: not kept

  std::byte* exponentials_of(const Plan& p, i64 block) const {
    return exponentials.data() + block * p.block * rows * size_of(p.kept);
  }
};

Chunk allocate_chunk(const Plan& p, i64 first, bool keep, Workspace& workspace) {
  Arena& arena = workspace.arena;
  const i64 rows = std::min(p.chunk, p.x.shape(0) - first), cols = p.x.shape(1);
  Chunk c{first, rows, operand(p.x[first].data(), cols), {}, {}, {}, {}};
  if (p.compute == Compute::bf16) {
    u16* bf16 = arena.allocate<u16>(rows, cols).data();
    to_bf16_parallel(p.x[first].data(), DType::f32, bf16, rows * cols);
    c.x = bf16_operand(bf16, cols);
  }
  c.largest = arena.allocate<float>(rows, p.blocks), c.sums = arena.allocate<float>(rows, p.blocks);
  c.target_logits = arena.zeros<float>(rows);
  if (keep) c.exponentials = arena.allocate<std::byte>(rows * p.head.rows * size_of(p.kept));
  return c;
}

void make_exponentials(const Plan& p, const Chunk& c, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(exponentials_kernel);
  const i64 cols = p.x.shape(1);
  const View<float, 3> logits = workspace.arena.allocate<float>(threads(), std::min(cached_rows, c.rows), p.block);
  const float unit = p.kept == DType::f16 ? f16_unit : 1.0f;
  parallel_dynamic(p.blocks, [&](int thread, i64 index) {
    const i64 width = p.width(index);
    float* z = logits[thread].data();
    for (i64 begin = 0; begin < c.rows; begin += cached_rows) {
      const i64 rows = std::min(cached_rows, c.rows - begin);
      GemmOperand x = c.x;
      x.data = static_cast<const std::byte*>(x.data) + begin * cols * size_of(x.dtype);
      gemm({.m = rows,
            .n = width,
            .k = cols,
            .a = x,
            .b = p.logit_factors[static_cast<size_t>(index)],
            .c = z,
            .c_stride = width},
           workspace.gemms);
      for (i64 r = 0; r < rows; ++r) {
        const i64 column = p.targets[c.first + begin + r] - index * p.block;
        if (column >= 0 && column < width) c.target_logits[begin + r] = z[r * width + column];
      }
      std::byte* e = c.exponentials.empty() ? nullptr : c.exponentials_of(p, index) + begin * width * size_of(p.kept);
      kernel(z, rows, width, &c.largest(begin, index), &c.sums(begin, index), p.blocks, unit, p.kept, e);
    }
  });
}

// The losses; and into `largest` the factors that turn e into scale softmax(z).
void finish_rows(const Plan& p, const Chunk& c, float scale) {
  const double unit = p.kept == DType::f16 ? f16_unit : 1.0;
  parallel_ranges(c.rows, 16, [&](int, i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      const View<float, 1> m = c.largest[r], s = c.sums[r];
      const double top = *std::max_element(m.begin(), m.end());
      double sum = 0.0;
      for (i64 b = 0; b < p.blocks; ++b) sum += s[b] * std::exp(m[b] - top);
      const double lse = top + std::log(sum);
      const bool ignored = p.targets[c.first + r] < 0;
      p.loss[c.first + r] = ignored ? 0.0f : static_cast<float>(lse - c.target_logits[r]);
      for (float& factor : m) factor = ignored ? 0.0f : static_cast<float>(scale * std::exp(factor - lse) / unit);
    }
  });
}

// What the backward of every chunk needs besides.
struct BackwardPlan {
  Out<float, 2> dx, dhead;
  float scale;
  std::vector<GemmOperand> head;  // blocks of rows
  int team;                       // threads that sum parts of dx
};

// dz of block `index`, in the format of the products.
void make_dz(const Plan& p, const Chunk& c, float scale, i64 index, std::byte* dz) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(scaled_kernel);
  const i64 width = p.width(index), size = size_of(factor_type(p.compute));
  const std::byte* e = c.exponentials_of(p, index);
  for (i64 r = 0; r < c.rows; ++r) {
    const float factor = c.largest(r, index);
    kernel(e + r * width * size_of(p.kept), p.kept, width, factor, dz + r * width * size);
    const i32 target = p.targets[c.first + r];
    const i64 column = target - index * p.block;
    if (target < 0 || column < 0 || column >= width) continue;
    // dz_nv = scale (softmax(z_n)_v - [v = target])
    const i64 place = r * width + column;
    if (p.compute == Compute::bf16) {
      const float softmax = f16_to_float(reinterpret_cast<const u16*>(e)[place]) * factor;
      reinterpret_cast<u16*>(dz)[place] = float_to_bf16(softmax - scale);
    } else {
      reinterpret_cast<float*>(dz)[place] -= scale;
    }
  }
}

void backward_chunk(const Plan& p, const BackwardPlan& b, const Chunk& c, Workspace& workspace) {
  Arena& arena = workspace.arena;
  const i64 cols = p.x.shape(1), down = (c.rows + deepest - 1) / deepest;
  const DType dtype = factor_type(p.compute);
  const bool bf16 = dtype == DType::bf16;
  std::vector<GemmOperand> x;  // (rows, C) as the right factor of dhead
  for (i64 i = 0; i < down; ++i)
    x.push_back(pack(operand(p.x[c.first + i * deepest].data(), cols), std::min(deepest, c.rows - i * deepest), cols,
                     dtype, arena, workspace.gemms));
  const View<float, 3> sums = arena.allocate<float>(b.team, c.rows, cols);
  const View<std::byte, 2> tiles = arena.allocate<std::byte>(b.team, c.rows * p.block * size_of(dtype));
  const View<u16, 2> columns = arena.allocate<u16>(b.team, bf16 ? p.block * deepest : 0);
  parallel_ranges(b.team, 1, [&](int, i64 member, i64) {
    std::byte* dz = tiles[member].data();
    const i64 begin = p.blocks * member / b.team, end = p.blocks * (member + 1) / b.team;
    for (i64 index = begin; index < end; ++index) {
      const i64 width = p.width(index);
      make_dz(p, c, b.scale, index, dz);
      // dx_n += dz_n head
      gemm({.m = c.rows,
            .n = cols,
            .k = width,
            .a = {dz, dtype, width, 1},
            .b = b.head[static_cast<size_t>(index)],
            .c = sums[member].data(),
            .c_stride = cols,
            .accumulate = index > begin},
           workspace.gemms);
      // dhead += sum_n dz_n^T x_n
      for (i64 i = 0; i < down; ++i) {
        const i64 depth = std::min(deepest, c.rows - i * deepest);
        const std::byte* rows = dz + i * deepest * width * size_of(dtype);
        GemmOperand a = GemmOperand{rows, dtype, width, 1}.transposed();
        if (bf16) {
          u16* transposed = columns[member].data();
          transpose_to_bf16(reinterpret_cast<const u16*>(rows), depth, width, width, transposed, depth);
          a = bf16_operand(transposed, depth);
        }
        gemm({.m = width,
              .n = cols,
              .k = depth,
              .a = a,
              .b = x[static_cast<size_t>(i)],
              .c = b.dhead[index * p.block].data(),
              .c_stride = cols,
              .accumulate = true},
             workspace.gemms);
      }
    }
  });
  const View<float, 2> dx = b.dx.slice(c.first, c.rows);
  parallel_ranges(dx.size(), 4096, [&](int, i64 begin, i64 end) {
    std::copy(sums.data() + begin, sums.data() + end, dx.data() + begin);
    for (i64 t = 1; t < b.team; ++t)
      for (i64 i = begin; i < end; ++i) dx.data()[i] += sums[t].data()[i];
  });
}

}  // namespace

void run(const LinearCrossEntropy& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const Plan p = plan(op, workspace);
  for (i64 first = 0; first < op.x.shape(0); first += p.chunk) {
    const Arena::Mark before = workspace.arena.mark();
    const Chunk chunk = allocate_chunk(p, first, false, workspace);
    make_exponentials(p, chunk, workspace);
    finish_rows(p, chunk, 1.0f);
    workspace.arena.release(before);
  }
  workspace.arena.release(mark);
}

void run(const LinearCrossEntropyBackward& op, Workspace& workspace) {
  const Arena::Mark mark = workspace.arena.mark();
  const Plan p = plan(op, workspace);
  const BackwardPlan backward{op.dx, op.dhead, op.scale,
                              prepare_blocks(op.head, p.block, false, op.x.shape(0), op.compute, workspace),
                              static_cast<int>(std::min<i64>(threads(), p.blocks))};
  for (i64 first = 0; first < op.x.shape(0); first += p.chunk) {
    const Arena::Mark before = workspace.arena.mark();
    const Chunk chunk = allocate_chunk(p, first, true, workspace);
    make_exponentials(p, chunk, workspace);
    finish_rows(p, chunk, op.scale);
    backward_chunk(p, backward, chunk, workspace);
    workspace.arena.release(before);
  }
  workspace.arena.release(mark);
}

}  // namespace sparsam::cpu
#endif
