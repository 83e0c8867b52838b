// ChooseBlocks: of the blocks of neighbours in a row those with the greatest scores pass, the rest become 0.
//   y_np = h_np  where c_n,p/size is among the `keep` greatest of its row, else 0
// Of blocks that score alike the earlier passes; NaN counts as the greatest. Without h, y is 1 where a block passes:
// what SelectedMatmul reads. No backward: not for training.
#pragma once

#include <cmath>

#include "tensor/view.h"

namespace sparsam {
namespace generic {

template <class Real>
struct ChooseBlocks {
  static constexpr const char* name = "ChooseBlocks";
  Out<Real, 2> y;      // (N, P)  may be h
  In<Real, 2> h = {};  // (N, P)  empty: ones
  In<Real, 2> c;       // (N, blocks)
  i64 size = 1;        // neighbours of a block; the last block has what is left
  i64 keep = 1;

  static void fields(auto&& f, auto&... op) {
    f("y", op.y...), f("h", op.h...), f("c", op.c...), f("size", op.size...), f("keep", op.keep...);
  }
  void validate() const {
    check(size >= 1 && keep >= 1, "ChooseBlocks.size is {}, keep {}, expected 1 or more", size, keep);
    check_shape(c, {y.shape(0), (y.shape(1) + size - 1) / size}, "ChooseBlocks.c");
    check_optional_shape(h, y.shape(), "ChooseBlocks.h");
  }
  i64 flops() const { return c.size(); }
  // Whether block i is chosen before block j of a row.
  static bool before(In<Real, 1> row, i64 i, i64 j) {
    const auto greatness = [&](i64 b) {
      const double score = static_cast<double>(row[b]);
      return std::isnan(score) ? static_cast<double>(INFINITY) : score;
    };
    const double a = greatness(i), b = greatness(j);
    return a > b || (a == b && i < j);
  }
};

}  // namespace generic

using ChooseBlocks = generic::ChooseBlocks<float>;

}  // namespace sparsam
