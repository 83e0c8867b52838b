// Activation: an elementwise non-linearity, and its product with a second branch (gated MLP).
//   forward    y = f(x)                                  h  = f(gate) g(up)
//   backward   dx += dy f'(x)                            dgate = dh g(up) f'(gate)     dup = dh f(gate) g'(up)
//              g is the identity, or f itself (dReLU: Song et al. 2024, arXiv 2406.05955)
//   relu       max(x, 0)                                 relu2      max(x, 0)^2                       (So et al. 2021)
//   gelu       x/2 (1 + erf(x / sqrt 2))                 gelu_tanh  x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
//   silu       x / (1 + exp(-x))                         fatrelu    x where x > threshold, else 0  (arXiv 2402.13516)
//   sigmoid    1 / (1 + exp(-x))
// The derivative of relu at 0, and of fatrelu at its threshold, is 0. GELU: Hendrycks & Gimpel 2016; gated MLPs:
// Shazeer 2020 (arXiv 2002.05202).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tensor/view.h"

namespace sparsam {

enum class Function : u8 { relu, relu2, gelu, gelu_tanh, silu, fatrelu, sigmoid };
std::string_view name_of(Function function);
// By name ("silu", also Hugging Face's synonyms: swish, gelu_new, gelu_pytorch_tanh, relu_squared). An unknown name is
// an Error that names `where` and the close matches.
Function function_from_name(std::string_view name, std::string_view where);
std::vector<std::string> function_names();

namespace generic {

template <class Real>
struct Activation {
  static constexpr const char* name = "Activation";
  Out<Real, 2> y;  // (N, F)
  In<Real, 2> x;   // (N, F)
  Function function;
  Real threshold = 0;  // of fatrelu

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("function", op.function...), f("threshold", op.threshold...);
  }
  void validate() const { check_shape(y, x.shape(), "Activation.y"); }
  i64 flops() const { return 8 * x.size(); }
};

template <class Real>
struct ActivationBackward {
  static constexpr const char* name = "ActivationBackward";
  Out<Real, 2> dx;  // (N, F)  overwritten: x has no other reader
  In<Real, 2> dy;   // (N, F)
  In<Real, 2> x;    // (N, F)
  Function function;
  Real threshold = 0;

  static void fields(auto&& f, auto&... op) {
    f("dx", op.dx...), f("dy", op.dy...), f("x", op.x...), f("function", op.function...),
        f("threshold", op.threshold...);
  }
  void validate() const {
    check_shape(dx, x.shape(), "ActivationBackward.dx");
    check_shape(dy, x.shape(), "ActivationBackward.dy");
  }
  i64 flops() const { return 12 * x.size(); }
};

template <class Real>
struct GatedProduct {
  static constexpr const char* name = "GatedProduct";
  Out<Real, 2> h;        // (N, F)
  In<Real, 2> gate, up;  // (N, F)
  Function function;
  Real threshold = 0;
  bool activate_up = false;  // g is f, not the identity

  static void fields(auto&& f, auto&... op) {
    f("h", op.h...), f("gate", op.gate...), f("up", op.up...), f("function", op.function...),
        f("threshold", op.threshold...), f("activate_up", op.activate_up...);
  }
  void validate() const {
    check_shape(h, gate.shape(), "GatedProduct.h");
    check_shape(up, gate.shape(), "GatedProduct.up");
  }
  i64 flops() const { return 9 * gate.size(); }
};

template <class Real>
struct GatedProductBackward {
  static constexpr const char* name = "GatedProductBackward";
  Out<Real, 2> dgate, dup;  // (N, F)  overwritten
  In<Real, 2> dh;           // (N, F)
  In<Real, 2> gate, up;     // (N, F)
  Function function;
  Real threshold = 0;
  bool activate_up = false;

  static void fields(auto&& f, auto&... op) {
    f("dgate", op.dgate...), f("dup", op.dup...), f("dh", op.dh...), f("gate", op.gate...), f("up", op.up...),
        f("function", op.function...), f("threshold", op.threshold...), f("activate_up", op.activate_up...);
  }
  void validate() const {
    check_shape(dgate, gate.shape(), "GatedProductBackward.dgate");
    check_shape(dup, gate.shape(), "GatedProductBackward.dup");
    check_shape(dh, gate.shape(), "GatedProductBackward.dh");
    check_shape(up, gate.shape(), "GatedProductBackward.up");
  }
  i64 flops() const { return 15 * gate.size(); }
};

}  // namespace generic

using Activation = generic::Activation<float>;
using ActivationBackward = generic::ActivationBackward<float>;
using GatedProduct = generic::GatedProduct<float>;
using GatedProductBackward = generic::GatedProductBackward<float>;

}  // namespace sparsam
