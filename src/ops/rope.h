// Rotary position embedding (Su et al. 2021, arXiv 2104.09864): rotates pairs of channels by an angle that grows with
// the position. Pair i of the first R channels of each head, at position p, turns by the angle whose cosine and sine
// the tables hold at (p, i); the channels from R on pass unchanged.
//   forward    (y_a, y_b) = (x_a cos - x_b sin,  x_a sin + x_b cos)
//   backward   the transpose: inverse = true turns by the negative angle (dx from dy)
// Tables that hold m cos and m sin also stretch by m (YaRN's attention factor); the transpose does so too.
//   halves       a = i, b = i + R/2     (Hugging Face Llama, GPT-NeoX)
//   interleaved  a = 2i, b = 2i + 1     (Meta's Llama, GPT-J)
#pragma once

#include "tensor/view.h"

namespace sparsam {

enum class Pairing : u8 { halves, interleaved };

namespace generic {

template <class Real>
struct Rope {
  static constexpr const char* name = "Rope";
  Out<Real, 3> y;            // (N, H, D)  may be x itself
  In<Real, 3> x;             // (N, H, D)
  In<i32, 1> positions;      // (N)        each below P
  In<Real, 2> cosine, sine;  // (P, R/2)
  Pairing pairing;
  bool inverse;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("x", op.x...), f("positions", op.positions...), f("cosine", op.cosine...), f("sine", op.sine...),
        f("pairing", op.pairing...), f("inverse", op.inverse...);
  }
  void validate() const {
    check_shape(y, x.shape(), "Rope.y");
    check_shape(positions, {x.shape(0)}, "Rope.positions");
    check_shape(sine, cosine.shape(), "Rope.sine");
    check(2 * cosine.shape(1) <= x.shape(2), "Rope turns {} channels of heads of {}", 2 * cosine.shape(1), x.shape(2));
  }
  i64 flops() const { return 6 * x.shape(0) * x.shape(1) * cosine.shape(1); }
};

}  // namespace generic

using Rope = generic::Rope<float>;

}  // namespace sparsam
