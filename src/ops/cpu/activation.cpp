// Activations on all threads, elementwise.
#include "ops/activation.h"

#include "base/threads.h"
#include "ops/cpu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/activation.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

// Each function: y = f(x) and slope = f'(x), which costs nothing where nobody reads it.
struct Relu {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V value(D d, V x, V& slope) {
    const V y = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);   // NaN < 0 is false: it stays
    slope = hn::IfThenElse(hn::Gt(x, hn::Zero(d)), hn::Set(d, 1.0f), y);  // y: 0 or NaN
    return y;
  }
};
struct SquaredRelu {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V value(D d, V x, V& slope) {
    const V y = Relu::value(d, x, slope);
    slope = hn::Add(y, y);
    return hn::Mul(y, y);
  }
};
// x Phi(x), Phi the normal distribution: (1 + erf(x / sqrt 2)) / 2.
struct Gelu {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V value(D d, V x, V& slope) {
    V cdf, density;
    normal_distribution(d, x, cdf, density);
    slope = hn::MulAdd(x, density, cdf);
    return hn::Mul(x, cdf);
  }
};
// (1 + tanh(u)) / 2 = sigmoid(2u), so gelu_tanh is x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct TanhGelu {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V value(D d, V x, V& slope) {
    const V a = hn::Set(d, 1.59576912f), b = hn::Set(d, 1.59576912f * 0.044715f);
    const V square = hn::Min(hn::Mul(x, x), hn::Set(d, 1e4f));  // beyond, s is 0 or 1 and the cube could overflow
    V rest;
    const V s = sigmoid(d, hn::Mul(x, hn::MulAdd(b, square, a)), rest), y = hn::Mul(x, s);
    const V steepness = hn::MulAdd(hn::Mul(b, hn::Set(d, 3.0f)), square, a);
    slope = hn::MulAdd(y, hn::Mul(steepness, rest), s);
    return y;
  }
};
struct Silu {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V value(D d, V x, V& slope) {
    V rest;
    const V s = sigmoid(d, x, rest), y = hn::Mul(x, s);
    slope = hn::MulAdd(y, rest, s);
    return y;
  }
};
struct Sigmoid {
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE V value(D d, V x, V& slope) {
    V rest;
    const V s = sigmoid(d, x, rest);
    slope = hn::Mul(s, rest);
    return s;
  }
};
struct FatRelu {
  float threshold;
  template <class D, class V = hn::Vec<D>>
  HWY_INLINE V value(D d, V x, V& slope) const {
    const V y = hn::IfThenElse(hn::Le(x, hn::Set(d, threshold)), hn::Zero(d), x);
    slope = hn::IfThenElse(hn::Gt(x, hn::Set(d, threshold)), hn::Set(d, 1.0f), y);  // y: 0 or NaN
    return y;
  }
};

template <class Body>
HWY_INLINE void with(Function function, float threshold, Body&& body) {
  switch (function) {
    case Function::relu:
      return body(Relu());
    case Function::relu2:
      return body(SquaredRelu());
    case Function::gelu:
      return body(Gelu());
    case Function::gelu_tanh:
      return body(TanhGelu());
    case Function::silu:
      return body(Silu());
    case Function::fatrelu:
      return body(FatRelu{threshold});
    case Function::sigmoid:
      return body(Sigmoid());
  }
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V value(D d, const auto& f, V x) {
  V slope;
  return f.value(d, x, slope);
}

void activation(const Activation& op, i64 begin, i64 n) {
  const float* x = op.x.data() + begin;
  float* y = op.y.data() + begin;
  with(op.function, op.threshold, [&](auto f) HWY_ATTR {
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR { hn::StoreU(value(d, f, hn::LoadU(d, x + i)), d, y + i); });
  });
}

void activation_backward(const ActivationBackward& op, i64 begin, i64 n) {
  const float *x = op.x.data() + begin, *dy = op.dy.data() + begin;
  float* dx = op.dx.data() + begin;
  with(op.function, op.threshold, [&](auto f) HWY_ATTR {
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      auto slope = hn::Zero(d);
      f.value(d, hn::LoadU(d, x + i), slope);
      hn::StoreU(hn::Mul(hn::LoadU(d, dy + i), slope), d, dx + i);
    });
  });
}

void gated_product(const GatedProduct& op, i64 begin, i64 n) {
  const float *gate = op.gate.data() + begin, *up = op.up.data() + begin;
  float* h = op.h.data() + begin;
  with(op.function, op.threshold, [&](auto f) HWY_ATTR {
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      auto g = hn::LoadU(d, up + i);
      if (op.activate_up) g = value(d, f, g);
      hn::StoreU(hn::Mul(value(d, f, hn::LoadU(d, gate + i)), g), d, h + i);
    });
  });
}

void gated_product_backward(const GatedProductBackward& op, i64 begin, i64 n) {
  const float *gate = op.gate.data() + begin, *up = op.up.data() + begin, *dh = op.dh.data() + begin;
  float *dgate = op.dgate.data() + begin, *dup = op.dup.data() + begin;
  with(op.function, op.threshold, [&](auto f) HWY_ATTR {
    for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
      auto slope = hn::Zero(d), g_slope = hn::Set(d, 1.0f), g = hn::LoadU(d, up + i);
      if (op.activate_up) g = f.value(d, g, g_slope);
      const auto v = hn::LoadU(d, dh + i), y = f.value(d, hn::LoadU(d, gate + i), slope);
      hn::StoreU(hn::Mul(hn::Mul(v, g), slope), d, dgate + i);
      hn::StoreU(hn::Mul(hn::Mul(v, y), g_slope), d, dup + i);
    });
  });
}

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(activation);
HWY_EXPORT(activation_backward);
HWY_EXPORT(gated_product);
HWY_EXPORT(gated_product_backward);

namespace {
void run_elements(const auto& op, i64 count, auto kernel) {
  parallel_ranges(count, 1024, [&](int, i64 begin, i64 end) { kernel(op, begin, end - begin); });
}
}  // namespace

void run(const Activation& op, Workspace&) { run_elements(op, op.x.size(), HWY_DYNAMIC_DISPATCH(activation)); }
void run(const ActivationBackward& op, Workspace&) {
  run_elements(op, op.x.size(), HWY_DYNAMIC_DISPATCH(activation_backward));
}
void run(const GatedProduct& op, Workspace&) { run_elements(op, op.gate.size(), HWY_DYNAMIC_DISPATCH(gated_product)); }
void run(const GatedProductBackward& op, Workspace&) {
  run_elements(op, op.gate.size(), HWY_DYNAMIC_DISPATCH(gated_product_backward));
}
}  // namespace sparsam::cpu
#endif
