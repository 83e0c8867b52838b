// SquaredNorm and AdamW on all threads: one pass over memory each.
#include "ops/optimizer.h"

#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

double squared_norm(const float* x, i64 n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  const auto add = [&](auto& sum, i64 i) HWY_ATTR {
    const auto v = hn::PromoteTo(d, hn::LoadU(df, x + i));
    sum = hn::MulAdd(v, v, sum);
  };
  i64 i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) add(a, i), add(b, i + lanes), add(c, i + 2 * lanes), add(e, i + 3 * lanes);
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

void adamw(const AdamW& op, i64 begin, i64 n) {
  float *w = op.w.data() + begin, *m = op.m.data() + begin, *v = op.v.data() + begin;
  const float* dw = op.dw.data() + begin;
  const double t = static_cast<double>(op.step);
  const float unbias1 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(op.beta1), t)));
  const float unbias2 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(op.beta2), t)));
  for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, dw + i), hn::Set(d, op.gradient_scale)), old_w = hn::LoadU(d, w + i);
    const auto new_m = hn::MulAdd(hn::LoadU(d, m + i), hn::Set(d, op.beta1), hn::Mul(g, hn::Set(d, 1 - op.beta1)));
    const auto new_v =
        hn::MulAdd(hn::LoadU(d, v + i), hn::Set(d, op.beta2), hn::Mul(hn::Mul(g, g), hn::Set(d, 1 - op.beta2)));
    const auto root = hn::Add(hn::Sqrt(hn::Mul(new_v, hn::Set(d, unbias2))), hn::Set(d, op.eps));
    const auto step =
        hn::MulAdd(old_w, hn::Set(d, op.weight_decay), hn::Div(hn::Mul(new_m, hn::Set(d, unbias1)), root));
    hn::StoreU(hn::NegMulAdd(step, hn::Set(d, op.learning_rate), old_w), d, w + i);
    hn::StoreU(new_m, d, m + i);
    hn::StoreU(new_v, d, v + i);
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(squared_norm);
HWY_EXPORT(adamw);

void run(const SquaredNorm& op, Workspace& workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(squared_norm);
  const Arena::Mark mark = workspace.arena.mark();
  const auto sums = workspace.arena.zeros<double>(threads());
  parallel_ranges(op.x.size(), 4096,
                  [&](int thread, i64 begin, i64 end) { sums[thread] = kernel(op.x.data() + begin, end - begin); });
  op.sum[0] = 0;
  for (const double sum : sums) op.sum[0] += sum;  // in the order of the threads
  workspace.arena.release(mark);
}

void run(const AdamW& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(adamw);
  parallel_ranges(op.w.size(), 1024, [&](int, i64 begin, i64 end) { kernel(op, begin, end - begin); });
}
}  // namespace sparsam::cpu
#endif
