#include "ops/embedding.h"

#include "base/threads.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/cpu.h"

namespace sparsam::cpu {

void run(const Embedding& op, Workspace&) {
  const i64 cols = op.table.cols;
  const DType dtype = op.table.dtype;
  parallel_ranges(op.tokens.shape(0), 16, [&](int, i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      if (is_quantised(dtype))  // rounded as the reference does
        dequantize_row(dtype, op.table.row(op.tokens[n]), op.y[n].span());
      else
        to_float(op.table.row(op.tokens[n]), dtype, op.y[n].data(), cols);
    }
  });
}

// Each thread owns some channels of the whole table: a token that occurs twice is summed by one thread, in order.
void run(const EmbeddingBackward& op, Workspace&) {
  const i64 cols = op.dy.shape(1);
  parallel_ranges(cols, 16, [&](int, i64 begin, i64 end) {
    for (i64 n = 0; n < op.tokens.shape(0); ++n) {
      const float* dy = op.dy[n].data();
      float* row = op.dtable[op.tokens[n]].data();
      for (i64 c = begin; c < end; ++c) row[c] += dy[c];
    }
  });
}

}  // namespace sparsam::cpu
