// ChooseBlocks on all threads, row by row.
#include "ops/choose_blocks.h"

#include <algorithm>
#include <numeric>

#include "base/threads.h"
#include "ops/cpu/cpu.h"

namespace sparsam::cpu {

void run(const ChooseBlocks& op, Workspace& workspace) {
  const i64 blocks = op.c.shape(1), P = op.y.shape(1), keep = std::min(op.keep, blocks);
  const Arena::Mark mark = workspace.arena.mark();
  const auto orders = workspace.arena.allocate<i32>(threads(), blocks);
  parallel_ranges(op.y.shape(0), std::max<i64>(1, 4096 / P), [&](int thread, i64 begin, i64 end) {
    const auto order = orders[thread];
    for (i64 n = begin; n < end; ++n) {
      std::iota(order.begin(), order.end(), 0);
      if (keep < blocks)
        std::nth_element(order.begin(), order.begin() + keep, order.end(),
                         [row = op.c[n]](i32 i, i32 j) { return ChooseBlocks::before(row, i, j); });
      float* y = op.y[n].data();
      for (i64 i = 0; i < blocks; ++i) {
        const i64 first = order[i] * op.size, tokens = std::min(op.size, P - first);
        if (i >= keep)
          std::fill_n(y + first, tokens, 0.0f);
        else if (op.h.empty())
          std::fill_n(y + first, tokens, 1.0f);
        else if (op.h.data() != op.y.data())
          std::copy_n(op.h[n].data() + first, tokens, y + first);
      }
    }
  });
  workspace.arena.release(mark);
}

}  // namespace sparsam::cpu
