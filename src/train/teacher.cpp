#include "train/teacher.h"

#include <algorithm>

#include "text/token_file.h"

namespace sparsam {

u64 hash_of(const Model& model) {
  u64 hash = hash_text(format_json(to_json(model.config), "config"));
  for_each_parameter(
      parameter_specs(model.config),
      [&](const std::string&, const ParameterSpec&, const Matrix& w) {
        hash = hash_text({reinterpret_cast<const char*>(w.bytes.data()), w.bytes.size()}, hash);
      },
      model.weights);
  return hash;
}

Teacher::Teacher(Model model, const Recipe& recipe, Backend& backend)
    : model_(std::move(model)),
      backend_(backend),
      weight_(static_cast<float>(recipe.distill_weight)),
      temperature_(static_cast<float>(recipe.distill_temperature)),
      transformer_(model_, backend, recipe.precision, recipe.sequence) {}

void Teacher::run(const Tokens& tokens, const LinearCrossEntropyBackward& plain, Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const In<float, 2> hidden = transformer_.forward(tokens, arena);
  const i64 N = plain.x.shape(0), V = plain.head.rows;
  constexpr i64 logits_at_once = i64{1} << 22;
  const i64 chunk = std::clamp<i64>(logits_at_once / V, 16, N);
  std::fill(plain.dx.begin(), plain.dx.end(), 0.0f);
  for (i64 first = 0; first < N; first += chunk) {
    const Arena::Mark before = arena.mark();
    const i64 rows = std::min(chunk, N - first);
    const In<float, 2> x = plain.x.slice(first, rows);
    const auto z = arena.allocate<float>(rows, V);
    backend_.run(Matmul{.y = z, .x = x, .w = plain.head, .compute = plain.compute});
    backend_.run(Distillation{.loss = plain.loss.slice(first, rows),
                              .dz = z,
                              .z = z,
                              .t = transformer_.logits(hidden.slice(first, rows), arena),
                              .targets = plain.targets.slice(first, rows),
                              .weight = weight_,
                              .temperature = temperature_,
                              .scale = plain.scale});
    // z = x head^T
    backend_.run(MatmulBackwardInput{
        .dx = Sum<float, 2>(plain.dx.slice(first, rows)), .dy = z, .w = plain.head, .compute = plain.compute});
    backend_.run(MatmulBackwardWeight{.dw = plain.dhead, .dy = z, .x = x, .compute = plain.compute});
    arena.release(before);
  }
  arena.release(mark);
}

void require_same_vocabulary(const Model& teacher, const std::string& directory, const Config& config,
                             const Tokenizer& tokenizer) {
  require_language_model(teacher.config, directory);
  if (teacher.config.vocab != config.vocab)
    fail("--teacher {} has a vocabulary of {}, the model one of {}: expected the same", directory, teacher.config.vocab,
         config.vocab);
  if (fs::exists(fs::path(directory) / "tokenizer.json") && Tokenizer::load(directory).to_json() != tokenizer.to_json())
    fail("--teacher {} has another tokenizer than the model: expected the same tokens for the same text", directory);
}

}  // namespace sparsam
