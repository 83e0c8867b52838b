// The same model with its rotary pairs laid out the other way.
#pragma once

#include "model/model.h"

namespace sparsam {

// Rows of queries and keys (weights, biases, gains of their norms) are put in the order that `pairing` wants: channel
// pairs (2i, 2i + 1) of Meta's Llama and GGUF's llama, or (i, i + R/2) of Hugging Face. Numbers stay as they are,
// quantised rows too, so that there and back gives the same bits. Models without rotary positions, and those that are
// so already, come back as they are.
Model with_pairing(const Model& model, Pairing pairing);

}  // namespace sparsam
