#include <algorithm>

#include "base/threads.h"
#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

// The first of the keys [0, end) that a query sees.
i64 first_key(i64 end, i64 window) { return window > 0 ? std::max<i64>(0, end - window) : 0; }

}  // namespace

template <class Real>
void run(const generic::Attention<Real>& op) {
  const Factors<Real, 4> q(op.q, op.compute), k(op.k, op.compute), v(op.v, op.compute);
  const i64 time = q.shape(1), heads = q.shape(2), head_size = q.shape(3), groups = k.shape(2);
  parallel_dynamic(q.shape(0) * heads * time, [&](int, i64 index) {
    const i64 b = index / (heads * time), h = index / time % heads, t = index % time, g = h * groups / heads;
    // s_tu = scale q_t . k_u  (first <= u <= t if causal)    lse_t = log sum_u exp(s_tu)
    const i64 end = op.causal ? t + 1 : time, first = first_key(end, op.window);
    Sums<Real> s(static_cast<size_t>(end - first)), y(static_cast<size_t>(head_size));
    for (i64 u = first; u < end; ++u)
      s[static_cast<size_t>(u - first)] = wide(op.scale) * dot(&q(b, t, h, 0), &k(b, u, g, 0), head_size);
    const Wide<Real> lse = log_sum_exp(s);
    if (!op.lse.empty()) op.lse(b, h, t) = static_cast<Real>(lse);
    // p_tu = exp(s_tu - lse_t)    y_t = sum_u p_tu v_u
    for (i64 u = first; u < end; ++u)
      add_scaled(y, freely_rounded(exp(s[static_cast<size_t>(u - first)] - lse), op.compute), &v(b, u, g, 0));
    store(y, &op.y(b, t, h, 0));
  });
}

template <class Real>
void run(const generic::AttentionBackward<Real>& op) {
  const Factors<Real, 4> q(op.q, op.compute), k(op.k, op.compute), v(op.v, op.compute), dy(op.dy, op.compute);
  const i64 time = q.shape(1), heads = q.shape(2), head_size = q.shape(3), groups = k.shape(2);
  const Wide<Real> scale = wide(op.scale);
  const Sums<Real> zeros(static_cast<size_t>(head_size));
  parallel_dynamic(q.shape(0) * groups, [&](int, i64 index) {
    const i64 b = index / groups, g = index % groups;
    std::vector<Sums<Real>> dk(static_cast<size_t>(time), zeros), dv = dk;
    for (i64 h = g * heads / groups; h < (g + 1) * heads / groups; ++h)
      for (i64 t = 0; t < time; ++t) {
        // y_t = sum_u p_tu v_u  ->  dp_tu = dy_t . v_u    dv_u = sum_t p_tu dy_t
        // delta_t = sum_u p_tu dp_tu = dy_t . y_t
        const Wide<Real> delta = dot(&op.dy(b, t, h, 0), &op.y(b, t, h, 0), head_size);
        Sums<Real> dq = zeros;
        const i64 end = op.causal ? t + 1 : time;
        for (i64 u = first_key(end, op.window); u < end; ++u) {
          const Wide<Real> s = scale * dot(&q(b, t, h, 0), &k(b, u, g, 0), head_size);
          const Wide<Real> p = exp(s - wide(op.lse(b, h, t)));
          const Wide<Real> dp = dot(&dy(b, t, h, 0), &v(b, u, g, 0), head_size);
          add_scaled(dv[static_cast<size_t>(u)], freely_rounded(p, op.compute), &dy(b, t, h, 0));
          // p_tu = exp(s_tu - lse_t)  ->  ds_tu = p_tu (dp_tu - delta_t)
          // s_tu = scale q_t . k_u    ->  dq_t = scale sum_u ds_tu k_u    dk_u = scale sum_t ds_tu q_t
          const Wide<Real> ds = freely_rounded(scale * p * (dp - delta), op.compute);
          add_scaled(dq, ds, &k(b, u, g, 0));
          add_scaled(dk[static_cast<size_t>(u)], ds, &q(b, t, h, 0));
        }
        store(dq, &op.dq(b, t, h, 0));
      }
    for (i64 u = 0; u < time; ++u) {
      store(dk[static_cast<size_t>(u)], &op.dk(b, u, g, 0));
      store(dv[static_cast<size_t>(u)], &op.dv(b, u, g, 0));
    }
  });
}

template <class Real>
void run(const generic::CacheAppend<Real>& op) {
  for (i64 t = 0; t < op.k.shape(0); ++t)
    for (i64 g = 0; g < op.k.shape(1); ++g)
      for (i64 d = 0; d < op.k.shape(2); ++d) {
        const i64 row = g * op.capacity() + op.start + t;
        op.keys.set(row, d, op.k(t, g, d));
        op.values.set(row, d, op.v(t, g, d));
      }
}

template <class Real>
void run(const generic::CachedAttention<Real>& op) {
  const i64 heads = op.q.shape(1), head_size = op.q.shape(2), positions = op.start + op.q.shape(0);
  const Factors<Real, 3> q(op.q, op.compute);
  parallel_dynamic(heads, [&](int, i64 h) {
    const i64 first = h * op.groups / heads * op.capacity();
    const Factors<Real, 2> k(op.keys.slice(first, positions), op.compute);
    const Factors<Real, 2> v(op.values.slice(first, positions), op.compute);
    for (i64 t = 0; t < q.shape(0); ++t) {
      // As Attention's forward: s_u = scale q_t . k_u  (first <= u <= start + t)    p = softmax(s)
      // y_t = sum_u p_u v_u
      const i64 end = op.start + t + 1, first = first_key(end, op.window);
      Sums<Real> s(static_cast<size_t>(end - first)), y(static_cast<size_t>(head_size));
      for (i64 u = first; u < end; ++u)
        s[static_cast<size_t>(u - first)] = wide(op.scale) * dot(&q(t, h, 0), &k(u, 0), head_size);
      const Wide<Real> lse = log_sum_exp(s);
      for (i64 u = first; u < end; ++u)
        add_scaled(y, freely_rounded(exp(s[static_cast<size_t>(u - first)] - lse), op.compute), &v(u, 0));
      store(y, &op.y(t, h, 0));
      if (!op.lse.empty()) op.lse(h, t) = static_cast<Real>(lse);
    }
  });
}

template void run(const generic::Attention<float>&);
template void run(const generic::Attention<double>&);
template void run(const generic::Attention<Bounded>&);
template void run(const generic::AttentionBackward<float>&);
template void run(const generic::AttentionBackward<double>&);
template void run(const generic::AttentionBackward<Bounded>&);
template void run(const generic::CacheAppend<float>&);
template void run(const generic::CacheAppend<double>&);
template void run(const generic::CacheAppend<Bounded>&);
template void run(const generic::CachedAttention<float>&);
template void run(const generic::CachedAttention<double>&);
template void run(const generic::CachedAttention<Bounded>&);

}  // namespace sparsam::reference
