#include "model/transformer.h"

#include <algorithm>
#include <array>

namespace sparsam {

namespace {

i64 head_dim_of(const Config& config) {
  for (const Layer& layer : config.layers)
    if (const i64 head_dim = rotated_head_dim(layer)) return head_dim;
  return 2;
}

In<i32, 1> positions_of(const Tokens& tokens, Arena& arena) {
  const auto positions = arena.allocate<i32>(tokens.ids.size());
  const i64 T = tokens.length();
  for (i64 n = 0; n < positions.size(); ++n) positions[n] = static_cast<i32>(tokens.start + n % T);
  return positions;
}

// The buffers that hold the residual stream x + branch. When the backward will need every state, each sum takes the
// place of its branch; otherwise three buffers take turns, and the branches' scratch can be given back: the block's
// input, the attention's output, the MLP's.
class ResidualStream {
 public:
  ResidualStream(Arena& arena, i64 rows, i64 dim, bool keep_all) : keep_(keep_all) {
    for (size_t i = 0; i < (keep_ ? 1 : turns_.size()); ++i) turns_[i] = arena.allocate<float>(rows, dim);
  }
  Out<float, 2> first() { return turns_[0]; }
  Out<float, 2> next(Out<float, 2> branch) { return keep_ ? branch : turns_[++turn_ % turns_.size()]; }

 private:
  bool keep_;
  std::array<Out<float, 2>, 3> turns_;
  size_t turn_ = 0;
};

}  // namespace

void check_tokens(std::span<const i32> ids, const Config& config) {
  for (const i32 id : ids)
    if (id < 0 || id >= config.vocab)
      fail("model: token id {} is outside its vocabulary of {}; do tokenizer and model belong together?", id,
           config.vocab);
}

Transformer::Transformer(const Model& model, Backend& backend, Compute compute, i64 positions, bool skip_zeros)
    : model_(model), backend_(backend), compute_(compute), positions_(positions) {
  if (skip_zeros || leaves_out(model.config)) sparse_ = SparseLayers(model, backend, skip_zeros);
  if (skip_zeros) sparse_.find_crossovers(model, backend);
  if (model.config.positions == Positions::rotary)
    rotary_ = RotaryTables(model.config.rotary, head_dim_of(model.config), positions);
  else if (model.config.positions == Positions::learned && positions > model.config.context)
    fail("model: {} positions asked for, but its table of learned positions holds {}", positions, model.config.context);
}

Execution Transformer::execution(const Tokens& tokens, In<i32, 1> positions, Arena& arena) const {
  const i64 length = tokens.length();
  if (model_.config.positions == Positions::rotary) rotary_.require(tokens.start, tokens.start + length);
  return {.backend = backend_,
          .arena = arena,
          .compute = compute_,
          .config = model_.config,
          .rotary = rotary_,
          .positions = positions,
          .sequences = tokens.sequences,
          .length = length,
          .lengths = tokens.lengths};
}

Out<float, 2> Transformer::forward(const Tokens& tokens, Arena& arena, Activations* kept,
                                   std::span<const MixerCache> caches, const Observer& observe) const {
  const Config& config = model_.config;
  const Params<Matrix>& w = model_.weights;
  const i64 N = tokens.ids.size(), C = config.dim;
  check_tokens(tokens.ids.span(), config);
  check(tokens.start + tokens.length() <= positions_, "forward to position {} of {}", tokens.start + tokens.length(),
        positions_);
  check(caches.empty() || (is_language_model(config) && tokens.lengths.empty()), "a session of an encoder");
  const Out<float, 2> result = kept ? Out<float, 2>{} : arena.allocate<float>(N, C);
  const Arena::Mark begin = arena.mark();
  const In<i32, 1> positions = positions_of(tokens, arena);
  const Execution e = execution(tokens, positions, arena);
  ResidualStream stream(arena, N, C, kept != nullptr);
  if (kept) kept->positions = positions, kept->tokens = tokens, kept->layers.assign(config.layers.size(), {});

  Out<float, 2> x = stream.first();
  backend_.run(Embedding{.y = x, .tokens = tokens.ids, .table = w.token_embedding});
  if (config.embedding_scale != 1) backend_.run(Scale{.y = x, .x = x, .factor = config.embedding_scale});
  if (config.positions == Positions::learned) {
    const auto place = arena.allocate<float>(N, C);
    backend_.run(Embedding{.y = place, .tokens = positions, .table = w.position_embedding});
    backend_.run(Add{.y = x, .a = x, .b = place});
  }
  if (config.positions == Positions::recurrent) {
    RecurrentPositions scratch;
    const Arena::Mark mark = arena.mark();
    const Out<float, 2> place = recurrent_positions_forward(e, w, x, kept ? kept->recurrent : scratch,
                                                            caches.empty() ? Out<float, 2>{} : caches.back().positions);
    const Out<float, 2> placed = kept ? arena.allocate<float>(N, C) : x;
    backend_.run(Add{.y = placed, .a = x, .b = place});
    if (!kept) arena.release(mark);
    x = placed;
  }

  for (i64 l = 0; l < static_cast<i64>(config.layers.size()); ++l) {
    const size_t i = static_cast<size_t>(l);
    const Layer& layer = config.layers[i];
    const Out<float, 2> block_input = x;
    LayerActivations scratch;
    LayerActivations& acts = kept ? kept->layers[i] : scratch;
    acts.x = x;
    const Arena::Mark mark = arena.mark();
    const auto give_back = [&] {
      if (!kept) arena.release(mark);
    };
    const auto add_branch = [&](Out<float, 2> branch) {
      const Out<float, 2> after = stream.next(branch);
      backend_.run(Add{.y = after, .a = x, .b = branch});
      give_back();
      if (observe) observe(l, Sublayer::attention, x, after);
      x = after;
    };
    const MixerCache* cache = caches.empty() ? nullptr : &caches[i];
    if (const auto* attention = std::get_if<SoftmaxAttention>(&layer.mixer))
      add_branch(attention_forward(e, *attention, w.layers[i].attention, x, acts.attention,
                                   cache ? &cache->attention : nullptr, tokens.start, sparse_.of(i)));
    if (const auto* mixer = std::get_if<LogSumExpAttention>(&layer.mixer))
      add_branch(log_sum_exp_forward(e, *mixer, w.layers[i].attention, x, acts.log_sum_exp,
                                     cache ? &cache->log_sum_exp : nullptr));
    const bool parallel = config.residual == Residual::parallel;
    const Out<float, 2> mlp_input = parallel ? block_input : x;
    acts.x_mlp = mlp_input;
    const auto run_mlp = [&](const auto& mlp) {
      const auto branch = mlp_forward(e, mlp, w.layers[i].mlp, mlp_input, acts.mlp, sparse_.of(i));
      if (observe && parallel) {  // x already holds the attention's branch: observe the MLP's on its own
        const Out<float, 2> alone = arena.allocate<float>(N, C);
        backend_.run(Add{.y = alone, .a = mlp_input, .b = branch});
        observe(l, Sublayer::mlp, mlp_input, alone);
      }
      const Out<float, 2> after = stream.next(branch);
      backend_.run(Add{.y = after, .a = x, .b = branch});
      give_back();
      if (observe && !parallel) observe(l, Sublayer::mlp, mlp_input, after);
      x = after;
    };
    if (const auto* mlp = std::get_if<Mlp>(&layer.mlp)) run_mlp(*mlp);
    if (const auto* mlp = std::get_if<GatedMlp>(&layer.mlp)) run_mlp(*mlp);
    if (const auto* mlp = std::get_if<ParameterTokens>(&layer.mlp)) run_mlp(*mlp);
    if (observe) observe(l, Sublayer::block, block_input, x);
  }

  const NormActivations final_norm = norm_forward(e, w.final_norm, x);
  if (config.logit_scale != 1)  // the head is linear: scaled states give scaled logits
    backend_.run(Scale{.y = final_norm.y, .x = final_norm.y, .factor = config.logit_scale});
  if (kept) {
    kept->x = x, kept->final_norm = final_norm;
    return final_norm.y;
  }
  std::copy(final_norm.y.begin(), final_norm.y.end(), result.begin());
  arena.release(begin);
  return result;
}

void Transformer::backward(const Tokens& tokens, In<float, 2> dhidden, const Activations& kept,
                           const Params<Out<float, 2>>& gradients, Arena& arena, float l1) const {
  const Config& config = model_.config;
  const Params<Matrix>& w = model_.weights;
  const i64 N = tokens.ids.size(), C = config.dim;
  const Execution e = execution(tokens, kept.positions, arena);
  const Arena::Mark begin = arena.mark();
  const Out<float, 2> dx = arena.zeros<float>(N, C);  // gradient of the residual stream, from the end to the beginning
  const Out<float, 2> dblock = config.residual == Residual::parallel ? arena.allocate<float>(N, C) : Out<float, 2>{};
  // in the forward pass this was: hidden = logit_scale norm(x)
  if (config.logit_scale != 1) {
    const Out<float, 2> scaled = arena.allocate<float>(N, C);
    backend_.run(Scale{.y = scaled, .x = dhidden, .factor = config.logit_scale});
    dhidden = scaled;
  }
  norm_backward(e, w.final_norm, gradients.final_norm, kept.final_norm, kept.x, dhidden, dx);

  for (size_t i = config.layers.size(); i-- > 0;) {
    const Layer& layer = config.layers[i];
    const LayerActivations& acts = kept.layers[i];
    const Arena::Mark mark = arena.mark();
    // x = x + branch: dx passes on, and the branch adds to it. Sequentially the branch has read dx before it adds; side
    // by side both branches need the block's own dx.
    In<float, 2> dbranch = dx;
    if (!dblock.empty()) {
      std::copy(dx.begin(), dx.end(), dblock.begin());
      dbranch = dblock;
    }
    const auto run_mlp = [&](const auto& mlp) {
      mlp_backward(e, mlp, w.layers[i].mlp, gradients.layers[i].mlp, acts.mlp, acts.x_mlp, dbranch, dx, l1);
      arena.release(mark);
    };
    if (const auto* mlp = std::get_if<Mlp>(&layer.mlp)) run_mlp(*mlp);
    if (const auto* mlp = std::get_if<GatedMlp>(&layer.mlp)) run_mlp(*mlp);
    if (const auto* mlp = std::get_if<ParameterTokens>(&layer.mlp)) run_mlp(*mlp);
    if (const auto* attention = std::get_if<SoftmaxAttention>(&layer.mixer)) {
      attention_backward(e, *attention, w.layers[i].attention, gradients.layers[i].attention, acts.attention, acts.x,
                         dbranch, dx);
      arena.release(mark);
    }
    if (const auto* mixer = std::get_if<LogSumExpAttention>(&layer.mixer)) {
      log_sum_exp_backward(e, *mixer, w.layers[i].attention, gradients.layers[i].attention, acts.log_sum_exp, acts.x,
                           dbranch, dx);
      arena.release(mark);
    }
  }

  // x = scale embedding(tokens) [+ embedding(positions)] [+ recurrence(x)]
  if (config.positions == Positions::recurrent) recurrent_positions_backward(e, w, gradients, kept.recurrent, dx);
  if (config.positions == Positions::learned)
    backend_.run(EmbeddingBackward{.dtable = gradients.position_embedding, .dy = dx, .tokens = kept.positions});
  if (config.embedding_scale != 1) backend_.run(Scale{.y = dx, .x = dx, .factor = config.embedding_scale});
  backend_.run(EmbeddingBackward{.dtable = gradients.token_embedding, .dy = dx, .tokens = tokens.ids});
  arena.release(begin);
}

Out<float, 2> Transformer::head_input(const Tokens& tokens, Out<float, 2> hidden, Arena& arena) const {
  if (model_.config.labels.empty()) return hidden;
  const auto mean = arena.allocate<float>(tokens.sequences, hidden.shape(1));
  backend_.run(SequenceMean{
      .y = mean, .x = hidden.as(tokens.sequences, tokens.length(), hidden.shape(1)), .lengths = tokens.lengths});
  return mean;
}

Out<float, 2> Transformer::head_input_backward(const Tokens& tokens, Out<float, 2> dinput, Arena& arena) const {
  if (model_.config.labels.empty()) return dinput;
  const auto dhidden = arena.allocate<float>(tokens.ids.size(), dinput.shape(1));
  backend_.run(SequenceMeanBackward{
      .dx = dhidden.as(tokens.sequences, tokens.length(), dinput.shape(1)), .dy = dinput, .lengths = tokens.lengths});
  return dhidden;
}

Out<float, 2> Transformer::logits(In<float, 2> hidden, Arena& arena) const {
  const auto y = arena.allocate<float>(hidden.shape(0), model_.head().rows);
  backend_.run(Matmul{.y = y, .x = hidden, .w = model_.head(), .compute = compute_});
  return y;
}

Out<float, 1> Transformer::losses(In<float, 2> hidden, In<i32, 1> targets, Arena& arena) const {
  const auto loss = arena.allocate<float>(hidden.shape(0));
  backend_.run(
      LinearCrossEntropy{.loss = loss, .x = hidden, .head = model_.head(), .targets = targets, .compute = compute_});
  return loss;
}

}  // namespace sparsam
