// The weight lambda of the L1 penalty over a run (ProSparse: Song et al. 2024, arXiv 2402.13516). The loss
// whose gradient is taken is
//   L = L_lm + lambda(t) sum over layers of mean over tokens n and neurons i of |h_ni|
// (h: what enters the down projection, before an inner norm). The mean over neurons makes lambda independent of the
// width: a sum over neurons and a mean over layers, as in TwELL (arXiv 2603.23198), has lambda' = lambda L / F.
//   t <= T_1               lambda = lambda_1
//   T_(i-1) < t <= T_i     lambda = lambda_(i-1) + eta (lambda_i - lambda_(i-1)),
//                          eta = (sin(-pi/2 + pi (t - T_(i-1)) / (T_i - T_(i-1))) + 1) / 2
//   T_S < t                lambda = lambda_S
// As text: "1e-2" (constant), or stages lambda@T: "0@100,5e-3@500,5e-2@2000", T in steps or in percent of the run:
// "0@10%,5e-2@60%".
#pragma once

#include <string_view>
#include <vector>

#include "base/types.h"

namespace sparsam {

class L1Schedule {
 public:
  // Error (usage) quoting the part that is wrong.
  explicit L1Schedule(std::string_view text);
  // Percent become steps. Error (usage) where stages do not end one after the other.
  void resolve(i64 steps);
  double weight(i64 step) const;  // step = 1, 2, ...

 private:
  struct Stage {
    double weight = 0, end = 0;  // lambda_i, T_i
    bool percent = false;
  };
  std::vector<Stage> stages_;
};

}  // namespace sparsam
