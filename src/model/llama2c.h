// Checkpoints of llama2.c as models.
#pragma once

#include "model/model.h"

namespace sparsam {

// A file of version 0 (formats/llama2c.h). The weights stay mapped; the tables of the rotation, which follow from the
// shape, are not read. The epsilon of its norms is 1e-5 and its pairs of channels are neighbours, as in run.c.
Model load_llama2c(const fs::path& path);

}  // namespace sparsam
