// Sessions over layers with a state of fixed size.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "infer/session.h"
#include "infer/test_support.h"

namespace sparsam {
namespace {

Architecture lse(bool options) {
  Architecture a = tiny_llama_like;
  a.mixer = Mixer::lse;
  if (options) a.decay = a.head_scale = true, a.convolution = 4, a.window = 5, a.key_cap = 12;
  return a;
}
std::vector<Architecture> architectures() {
  Architecture hybrid = lse(true), logs = lse(false);
  hybrid.softmax_every = 2;
  logs.log_values = true, logs.value_dim = 12;
  Architecture shared = lse(false), features = lse(true), published = logs, convolved = tiny_llama_like;
  shared.window = 5, shared.shared_window = true;
  features.feature_dim = 10, features.shared_window = true;
  published.value_dim = 0, published.positions = Positions::recurrent, published.output_glu = true;
  published.mlp = false;
  convolved.convolution = 4, convolved.window = 6;
  return {lse(false), lse(true), hybrid, logs, shared, features, published, convolved};
}

std::vector<float> copy(In<float, 1> x) { return {x.begin(), x.end()}; }
double greatest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double greatest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    greatest = std::max(greatest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return greatest;
}
constexpr double tolerance = 5e-5;  // as session_test.cpp

// The slow twin: whole sequences in the reference.
std::vector<float> last_logits(const Model& model, const std::vector<i32>& ids) {
  const auto backend = make_backend("reference");
  const Transformer transformer(model, *backend, Compute::f32, static_cast<i64>(ids.size()));
  Arena arena;
  const auto hidden =
      transformer.forward({.ids = {ids.data(), {static_cast<i64>(ids.size())}}, .sequences = 1, .start = 0}, arena);
  return copy(transformer.logits(hidden, arena)[hidden.shape(0) - 1]);
}

TEST(SessionState, PiecesAndStepsEqualTheWholeSequence) {
  for (const Architecture& architecture : architectures()) {
    const TinyModel tiny = tiny_model(architecture);
    const auto ids = random_ids(31, tiny.model.config.vocab, 3);
    const auto expected = last_logits(tiny.model, ids);
    const auto backend = make_backend("cpu");
    for (const i64 chunk : {1, 2, 7, 512})
      for (const i64 cut : {1, 13, 30}) {
        Session session(tiny.model, *backend, {.cache = DType::f32, .chunk = chunk});
        session.prefill(std::span(ids).first(static_cast<size_t>(cut)));
        const i64 bytes = session.cache_bytes();
        const auto found = copy(session.prefill(std::span(ids).subspan(static_cast<size_t>(cut))));
        EXPECT_LT(greatest_difference(found, expected), tolerance) << "chunks of " << chunk << ", cut at " << cut;
        if (architecture.softmax_every == 0) {
          EXPECT_EQ(session.cache_bytes(), bytes);
        }
      }
    Session steps(tiny.model, *backend, {.cache = DType::f32, .chunk = 3});
    std::vector<float> found;
    for (const i32 id : ids) found = copy(steps.step(id));
    EXPECT_LT(greatest_difference(found, expected), tolerance) << "steps";
  }
}

TEST(SessionState, GoesBackToWhatWasSavedAndForks) {
  for (const Architecture& architecture : architectures()) {
    const TinyModel tiny = tiny_model(architecture);
    const auto ids = random_ids(20, tiny.model.config.vocab, 4);
    const auto backend = make_backend("cpu");
    Session session(tiny.model, *backend);
    session.prefill(std::span(ids).first(9));
    const SessionState saved = session.save();
    const auto first = copy(session.prefill(std::span(ids).subspan(9)));
    session.restore(saved);
    EXPECT_EQ(session.position(), 9);
    Session fork(tiny.model, *backend);
    fork.restore(saved);
    EXPECT_EQ(copy(session.prefill(std::span(ids).subspan(9))), first);
    EXPECT_EQ(copy(fork.prefill(std::span(ids).subspan(9))), first);
    EXPECT_THROW(session.rewind(5), Error);
    session.rewind(0);
    session.prefill(std::span(ids).first(9));
    EXPECT_EQ(copy(session.prefill(std::span(ids).subspan(9))), first);
    Session other(tiny.model, *backend, {.cache = DType::f32});
    if (architecture.window > 0) {
      EXPECT_THROW(other.restore(saved), Error);  // its window's cache has other numbers
    }
    // A token outside the vocabulary changes nothing.
    const auto before = session.save();
    EXPECT_THROW(session.prefill(std::vector<i32>{1, 2, 100000}), Error);
    EXPECT_EQ(session.save().layers, before.layers);
  }
}

// Of one layer, states of two parts add up to that of both; in any grouping.
TEST(SessionState, MergedStatesAreThoseOfAllTokens) {
  Architecture one = lse(false);
  one.layers = 1;
  const TinyModel tiny = tiny_model(one);
  const auto ids = random_ids(24, tiny.model.config.vocab, 5);
  const auto backend = make_backend("cpu");
  const auto part = [&](size_t begin, size_t end) {
    Session session(tiny.model, *backend);
    session.prefill(std::span(ids).subspan(begin, end - begin));
    return session.save();
  };
  const auto merged = [&](const SessionState& a, const SessionState& b) {
    Session session(tiny.model, *backend);
    session.restore(a), session.merge(b);
    return session.save();
  };
  const auto next = [&](const SessionState& state) {
    Session session(tiny.model, *backend);
    session.restore(state);
    EXPECT_EQ(session.position(), 24);
    return copy(session.step(7));
  };
  const auto a = part(0, 5), b = part(5, 16), c = part(16, 24);
  const auto whole = next(part(0, 24));
  EXPECT_LT(greatest_difference(next(merged(merged(a, b), c)), whole), tolerance);
  EXPECT_LT(greatest_difference(next(merged(a, merged(b, c))), whole), tolerance);
  EXPECT_LT(greatest_difference(next(merged(merged(c, a), b)), whole), tolerance);
  EXPECT_GT(greatest_difference(next(merged(merged(a, a), part(0, 14))), whole), 100 * tolerance);

  const TinyModel decaying = tiny_model(lse(true));
  Session session(decaying.model, *backend);
  EXPECT_THROW(session.merge(session.save()), Error);
}

}  // namespace
}  // namespace sparsam
