// Loops of whole Highway vectors over ragged lengths. The rest that fills no vector goes lane by lane through the same
// function with one-lane vectors, so that nothing is read or written out of bounds.
#if defined(SPARSAM_OPS_CPU_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSAM_OPS_CPU_LOOPS_INL_H_
#undef SPARSAM_OPS_CPU_LOOPS_INL_H_
#else
#define SPARSAM_OPS_CPU_LOOPS_INL_H_
#endif

#include <hwy/highway.h>

#include "base/types.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;
using OneLane = hn::CappedTag<float, 1>;
using Vector = hn::Vec<Lanes>;

// body(d, i): handles the elements i, i + 1, ... of one vector of tag d.
template <class Body>
HWY_INLINE void for_vectors(i64 n, Body&& body) {
  const Lanes d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  i64 i = 0;
  for (; i + lanes <= n; i += lanes) body(d, i);
  for (; i < n; ++i) body(OneLane(), i);
}

// The sum over [0, n) of term(d, i), a vector; in four independent partial sums, always in the same order.
template <class Term>
HWY_INLINE float sum_vectors(i64 n, Term&& term) {
  const Lanes d;
  const i64 lanes = static_cast<i64>(hn::Lanes(d));
  Vector a = hn::Zero(d), b = a, c = a, e = a;
  i64 i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = hn::Add(a, term(d, i)), b = hn::Add(b, term(d, i + lanes));
    c = hn::Add(c, term(d, i + 2 * lanes)), e = hn::Add(e, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) a = hn::Add(a, term(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
  for (; i < n; ++i) sum += hn::GetLane(term(OneLane(), i));
  return sum;
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SPARSAM_OPS_CPU_LOOPS_INL_H_
