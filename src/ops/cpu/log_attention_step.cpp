// One token of log-sum-exp attention: a pass over the state that updates each channel and reads it for all heads.
#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/log_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/log_attention_step.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Of the channels [begin, begin + n) of all sequences and groups: the scale, and what the token adds: factor (n) of the
// state, weight (n) of the value.
void step_keys(const LogAttentionStep& op, i64 begin, i64 n, float* factor, float* weight) {
  const float *k = op.k.data() + begin, *gate = op.gate.empty() ? nullptr : op.gate.data() + begin;
  float *scale = op.scale.data() + begin, *mass = op.mass.data() + begin;
  for_vectors(n, [&](auto d, i64 a) HWY_ATTR {
    const auto none = hn::Set(d, minus_infinity), key = hn::LoadU(d, k + a);
    auto decayed = hn::LoadU(d, scale + a);
    if (gate) decayed = hn::Add(decayed, hn::LoadU(d, gate + a));
    const auto empty = hn::Eq(decayed, none);
    const auto raise =
        hn::Or(hn::Gt(key, hn::Add(decayed, hn::Set(d, op.headroom))), hn::And(empty, hn::Gt(key, none)));
    const auto raised = hn::IfThenElse(raise, key, decayed);
    const auto safe = hn::IfThenElseZero(hn::Ne(raised, none), raised);
    const auto kept = hn::IfThenElse(hn::Eq(raised, decayed), hn::Set(d, 1.0f), exp(d, hn::Sub(decayed, safe)));
    const auto keep = hn::IfThenZeroElse(empty, kept);
    const auto add = exp(d, hn::Sub(key, safe));
    hn::StoreU(raised, d, scale + a);
    hn::StoreU(keep, d, factor + a);
    hn::StoreU(add, d, weight + a);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, mass + a), keep, add), d, mass + a);
  });
}

// The largest of x (n).
HWY_INLINE float largest_of(const float* x, i64 n) {
  const Lanes d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  auto high = hn::Set(d, minus_infinity);
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) high = hn::Max(high, hn::LoadU(d, x + i));
  float largest = hn::GetLane(hn::MaxOfLanes(d, high));
  for (; i < n; ++i) largest = std::max(largest, x[i]);
  return largest;
}

// read (E): the weights of a query, relative to the largest; returns 1 / sum of the masses, 0 where nothing is seen.
float step_query(const LogAttentionStep& op, i64 b, i64 h, i64 g, float* read) {
  const i64 E = op.q.shape(2);
  const float *q = &op.q(b, h, 0), *scale = &op.scale(b, g, 0), *mass = &op.mass(b, g, 0);
  for_vectors(E, [&](auto d, i64 a)
                     HWY_ATTR { hn::StoreU(hn::Add(hn::LoadU(d, q + a), hn::LoadU(d, scale + a)), d, read + a); });
  float largest = largest_of(read, E);
  if (largest == minus_infinity) largest = 0;
  for_vectors(E, [&](auto d, i64 a) HWY_ATTR {
    hn::StoreU(exp(d, hn::Sub(hn::LoadU(d, read + a), hn::Set(d, largest))), d, read + a);
  });
  const float sum =
      sum_vectors(E, [&](auto d, i64 a) HWY_ATTR { return hn::Mul(hn::LoadU(d, read + a), hn::LoadU(d, mass + a)); });
  if (!op.lse.empty()) op.lse(b, h) = sum > 0 ? largest + std::log(sum) : minus_infinity;
  return sum > 0 || std::isnan(sum) ? 1 / sum : 0;
}

// Columns [c, c + Vectors lanes) of the state: with `value`, each channel takes it in; then y = read . state.
template <int Vectors, class D>
HWY_INLINE void step_columns(D d, float* sums, i64 E, i64 stride, i64 c, const float* factor, const float* weight,
                             const float* value, const float* read, float inverse, float* y) {
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  hn::Vec<D> v[Vectors], total[Vectors];
  for (int i = 0; i < Vectors; ++i) {
    total[i] = hn::Zero(d);
    if (value) v[i] = hn::LoadU(d, value + c + i * lanes);
  }
  sums += c;
  for (i64 a = 0; a < E; ++a, sums += stride) {
    const auto r = hn::Set(d, read[a]);
    if (value) {
      const auto keep = hn::Set(d, factor[a]), add = hn::Set(d, weight[a]);
      for (int i = 0; i < Vectors; ++i) {
        const auto sum = hn::MulAdd(add, v[i], hn::Mul(hn::LoadU(d, sums + i * lanes), keep));
        hn::StoreU(sum, d, sums + i * lanes);
        total[i] = hn::MulAdd(r, sum, total[i]);
      }
    } else {
      for (int i = 0; i < Vectors; ++i) total[i] = hn::MulAdd(r, hn::LoadU(d, sums + i * lanes), total[i]);
    }
  }
  for (int i = 0; i < Vectors; ++i) hn::StoreU(hn::Mul(total[i], hn::Set(d, inverse)), d, y + c + i * lanes);
}

// factor, weight (E) of the group; memory: E + D
void step_group(const LogAttentionStep& op, i64 b, i64 g, const float* factor, const float* weight, float* memory) {
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, D = value_dim, first = g * heads / groups, last = (g + 1) * heads / groups;
  float *read = memory, *value = read + E, *sums = &op.sums(b, g, 0, 0);
  std::copy_n(&op.v(b, g, 0), D, value);
  if (op.log_values)
    for_vectors(D, [&](auto d, i64 c) HWY_ATTR { hn::StoreU(exp(d, hn::LoadU(d, value + c)), d, value + c); });
  const Lanes d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  for (i64 h = first; h < last; ++h) {
    const float inverse = step_query(op, b, h, g, read);
    const float* taken = h == first ? value : nullptr;
    float* y = &op.y(b, h, 0);
    i64 c = 0;
    for (; c + 4 * lanes <= D; c += 4 * lanes)
      step_columns<4>(d, sums, E, D, c, factor, weight, taken, read, inverse, y);
    for (; c + 2 * lanes <= D; c += 2 * lanes)
      step_columns<2>(d, sums, E, D, c, factor, weight, taken, read, inverse, y);
    for (; c + lanes <= D; c += lanes) step_columns<1>(d, sums, E, D, c, factor, weight, taken, read, inverse, y);
    for (; c < D; ++c) step_columns<1>(OneLane(), sums, E, D, c, factor, weight, taken, read, inverse, y);
    for (i64 i = 0; op.log_values && i < D; ++i)
      y[i] = inverse == 0 ? 0 : std::log(std::max(y[i], std::numeric_limits<float>::min()));
  }
}

// Groups [begin, end) of all sequences; memory: 2 (end - begin) E + E + D
void step_groups(const LogAttentionStep& op, i64 begin, i64 end, float* memory) {
  const i64 G = op.k.shape(1), E = op.k.shape(2), n = (end - begin) * E;
  step_keys(op, begin * E, n, memory, memory + n);
  for (i64 i = begin; i < end; ++i)
    step_group(op, i / G, i % G, memory + (i - begin) * E, memory + n + (i - begin) * E, memory + 2 * n);
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(step_groups);

void run(const LogAttentionStep& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(step_groups);
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 E = key_dim, D = value_dim, count = batch * groups;
  const Arena::Mark mark = workspace.arena.mark();
  const auto memory = workspace.arena.allocate<float>(threads(), 2 * count * E + E + D);
  constexpr i64 worth_a_thread = 1 << 17;  // numbers of the state
  parallel_ranges(count, std::max<i64>(1, worth_a_thread / (E * D)),
                  [&](int thread, i64 begin, i64 end) { kernel(op, begin, end, memory[thread].data()); });
  workspace.arena.release(mark);
}
}  // namespace sparsam::cpu
#endif
