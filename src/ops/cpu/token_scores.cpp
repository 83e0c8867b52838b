// TokenScores on all threads: a row stays in the cache from its norm to its scores.
#include "ops/token_scores.h"

#include <cmath>

#include "base/threads.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/partial_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/token_scores.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

template <class D, class V = hn::Vec<D>>
HWY_INLINE V gelu(D d, V x, V& slope) {
  V cdf, density;
  normal_distribution(d, x, cdf, density);
  slope = hn::MulAdd(x, density, cdf);
  return hn::Mul(x, cdf);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V gelu(D d, V x) {
  V slope;
  return gelu(d, x, slope);
}

HWY_INLINE float sum_of_squares(i64 n, const float* x) {
  return sum_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    const auto v = hn::LoadU(d, x + i);
    return hn::Mul(v, v);
  });
}

// Each Theta, a row of P scores at a time; `norm` is its N. The backward writes s where it is not null.
struct L2Gelu {
  float tau, eps;
  i64 old;
  float mask;

  // The sum of f(first token, tokens, c) over the tokens from before growth and the others.
  template <class F>
  HWY_INLINE float over_parts(i64 P, F&& f) const {
    return f(0, old, 1.f) + f(old, P - old, mask);
  }
  float forward(i64 P, const float* a, float* s) const {
    const float norm = std::sqrt(
        over_parts(P, [&](i64 at, i64 tokens, float c) HWY_ATTR { return c * c * sum_of_squares(tokens, a + at); }));
    scores(P, a, norm, s);
    return norm;
  }
  void scores(i64 P, const float* a, float norm, float* s) const {
    const float scale = tau / (norm + eps);
    over_parts(P, [&](i64 at, i64 tokens, float c) HWY_ATTR {
      for_vectors(tokens, [&](auto d, i64 i) HWY_ATTR {
        const auto score = gelu(d, hn::Mul(hn::LoadU(d, a + at + i), hn::Set(d, scale)));
        hn::StoreU(hn::Mul(score, hn::Set(d, c)), d, s + at + i);
      });
      return 0.f;
    });
  }
  void backward(i64 P, const float* a, float norm, const float* ds, float* s, float* da) const {
    const float scale = tau / (norm + eps);
    const float dot = over_parts(P, [&](i64 at, i64 tokens, float c) HWY_ATTR {  // <a, dz>; da holds dz
      return sum_vectors(tokens, [&](auto d, i64 i) HWY_ATTR {
        auto slope = hn::Zero(d);
        const auto v = hn::LoadU(d, a + at + i), factor = hn::Set(d, c);
        const auto score = gelu(d, hn::Mul(v, hn::Set(d, scale)), slope);
        const auto dz = hn::Mul(hn::Mul(hn::LoadU(d, ds + at + i), slope), factor);
        if (s) hn::StoreU(hn::Mul(score, factor), d, s + at + i);
        hn::StoreU(dz, d, da + at + i);
        return hn::Mul(v, dz);
      });
    });
    const float pull = norm > 0 ? dot / (norm * (norm + eps)) : 0;
    over_parts(P, [&](i64 at, i64 tokens, float c) HWY_ATTR {
      for_vectors(tokens, [&](auto d, i64 i) HWY_ATTR {
        const auto along = hn::Mul(hn::LoadU(d, a + at + i), hn::Set(d, c * c * pull));
        hn::StoreU(hn::Mul(hn::Sub(hn::LoadU(d, da + at + i), along), hn::Set(d, scale)), d, da + at + i);
      });
      return 0.f;
    });
  }
};

struct GeluL2 {
  float tau, eps;
  float forward(i64 P, const float* a, float* s) const {
    const float norm = std::sqrt(sum_vectors(P, [&](auto d, i64 i) HWY_ATTR {
      const auto g = gelu(d, hn::LoadU(d, a + i));
      hn::StoreU(g, d, s + i);
      return hn::Mul(g, g);
    }));
    const float scale = tau / (norm + eps);
    for_vectors(P,
                [&](auto d, i64 i) HWY_ATTR { hn::StoreU(hn::Mul(hn::LoadU(d, s + i), hn::Set(d, scale)), d, s + i); });
    return norm;
  }
  void backward(i64 P, const float* a, float norm, const float* ds, float* s, float* da) const {
    const float scale = tau / (norm + eps);
    const float dot = sum_vectors(
        P, [&](auto d, i64 i) HWY_ATTR { return hn::Mul(gelu(d, hn::LoadU(d, a + i)), hn::LoadU(d, ds + i)); });
    const float pull = norm > 0 ? dot / (norm * (norm + eps)) : 0;
    for_vectors(P, [&](auto d, i64 i) HWY_ATTR {
      auto slope = hn::Zero(d);
      const auto g = gelu(d, hn::LoadU(d, a + i), slope), factor = hn::Set(d, scale);
      const auto dg = hn::Mul(factor, hn::NegMulAdd(g, hn::Set(d, pull), hn::LoadU(d, ds + i)));
      if (s) hn::StoreU(hn::Mul(g, factor), d, s + i);
      hn::StoreU(hn::Mul(dg, slope), d, da + i);
    });
  }
};

struct Softmax {
  float tau;
  float forward(i64 P, const float* a, float* s) const {
    float largest = a[0];
    for (i64 i = 1; i < P; ++i) largest = std::max(largest, a[i]);
    const float sum = sum_vectors(P, [&](auto d, i64 i) HWY_ATTR {
      const auto e = exp(d, hn::Sub(hn::LoadU(d, a + i), hn::Set(d, largest)));
      hn::StoreU(e, d, s + i);
      return e;
    });
    const float scale = tau * tau / sum;
    for_vectors(P,
                [&](auto d, i64 i) HWY_ATTR { hn::StoreU(hn::Mul(hn::LoadU(d, s + i), hn::Set(d, scale)), d, s + i); });
    return largest + std::log(sum);
  }
  void backward(i64 P, const float* a, float norm, const float* ds, float* s, float* da) const {
    const auto score = [&](auto d, i64 i) HWY_ATTR {
      return hn::Mul(hn::Set(d, tau * tau), exp(d, hn::Sub(hn::LoadU(d, a + i), hn::Set(d, norm))));
    };
    const float dot =
        sum_vectors(P, [&](auto d, i64 i) HWY_ATTR { return hn::Mul(score(d, i), hn::LoadU(d, ds + i)); });
    const float mean = dot / (tau * tau);
    for_vectors(P, [&](auto d, i64 i) HWY_ATTR {
      const auto v = score(d, i);
      hn::StoreU(hn::Mul(v, hn::Sub(hn::LoadU(d, ds + i), hn::Set(d, mean))), d, da + i);
      if (s) hn::StoreU(v, d, s + i);
    });
  }
};

template <class Body>
HWY_INLINE void with(const auto& op, Body&& body) {
  switch (op.theta) {
    case Theta::l2_gelu:
      return body(L2Gelu{op.tau, op.eps, op.old, op.mask});
    case Theta::gelu_l2:
      return body(GeluL2{op.tau, op.eps});
    case Theta::softmax:
      return body(Softmax{op.tau});
  }
}

void token_scores(const TokenScores& op, i64 begin, i64 end) {
  if (!op.root.empty()) {
    const L2Gelu theta{op.tau, op.eps, op.old, op.mask};
    for (i64 n = begin; n < end; ++n) {
      const float norm = std::sqrt(sum_of_squares(op.root.shape(1), op.root[n].data()));
      theta.scores(op.a.shape(1), op.a[n].data(), norm, op.s[n].data());
      if (!op.norm.empty()) op.norm[n] = norm;
    }
    return;
  }
  with(op, [&](auto theta) HWY_ATTR {
    for (i64 n = begin; n < end; ++n) {
      const float norm = theta.forward(op.a.shape(1), op.a[n].data(), op.s[n].data());
      if (!op.norm.empty()) op.norm[n] = norm;
    }
  });
}

void token_scores_backward(const TokenScoresBackward& op, i64 begin, i64 end) {
  with(op, [&](auto theta) HWY_ATTR {
    for (i64 n = begin; n < end; ++n)
      theta.backward(op.a.shape(1), op.a[n].data(), op.norm[n], op.ds[n].data(),
                     op.s.empty() ? nullptr : op.s[n].data(), op.da[n].data());
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(token_scores);
HWY_EXPORT(token_scores_backward);

void run(const TokenScores& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(token_scores);
  parallel_ranges(op.a.shape(0), rows_per_task(op.a.shape(1)),
                  [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}

void run(const TokenScoresBackward& op, Workspace&) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(token_scores_backward);
  parallel_ranges(op.a.shape(0), rows_per_task(op.a.shape(1)),
                  [&](int, i64 begin, i64 end) { kernel(op, begin, end); });
}
}  // namespace sparsam::cpu
#endif
