// Directories as Hugging Face's transformers writes them: what a config.json means, and where in its files each
// parameter lies. Families are described after transformers' own model definitions.
#pragma once

#include <string>
#include <vector>

#include "model/params.h"

namespace sparsam {

// Where a parameter lies in a stored tensor.
struct Source {
  std::string tensor = {};
  i64 stored_rows = 0;        // rows of the tensor; 0: as many as the parameter has
  i64 first = 0;              // the parameter's first row there
  i64 block = 0, stride = 0;  // the parameter is blocks of so many rows, so far apart; 0: one block
  bool transposed = false;    // the tensor is (in, out): its columns are the rows meant above
  float offset = 0;           // is added to the stored numbers (Gemma's gains)
};

struct HuggingFaceModel {
  Config config = {};
  Params<Source> sources = {};
  std::string prefix = {};  // of the names; files of a model without its head leave it out
};

// A config.json of a known family, or of this program (key "sparsam"). Errors name the place: an unknown model_type,
// unknown fields and values with the close matches, what a family can have but is not supported.
HuggingFaceModel read_hugging_face(const Json& json, const std::string& where);
std::vector<std::string> hugging_face_families();

// Buffers that old files hold beside the parameters: masks, rotary frequencies.
bool is_buffer(std::string_view tensor);

// The description under the key "sparsam", layer by layer.
Json description_json(const Config& config);
void read_description(const Json& json, const std::string& where, Config& config);
// What a family's own fields cannot say: "sparsam": {"truncation": [null or {"measure", "threshold", "keep"}, ...]}.
Json truncation_json(const std::vector<Truncation>& layers);
std::vector<Truncation> read_truncation(Fields& fields);
// "inputs": {"dense_positions", "layers": [null or {"qkv", "o", "up", "down"}, ...]}, the thresholds of inputs.
Json inputs_json(const InputSparsity& inputs);
InputSparsity read_inputs(Fields& fields);
// "crossovers": [{"type", "rows", "cols", "one_row", "several_rows"}, ...].
Json crossovers_json(const std::vector<Crossover>& crossovers);
std::vector<Crossover> read_crossovers(Fields& fields);
// A float as the shortest decimal that reads back as it: 1e-05, not 9.999999747378752e-06.
double shortest(float value);

}  // namespace sparsam
