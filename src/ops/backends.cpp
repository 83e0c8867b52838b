// The only file that knows which backends there are.
#include "ops/cpu/cpu.h"
#include "ops/cpu/targets.h"
#include "ops/reference/reference.h"

namespace sparsam {

namespace {

class Reference final : public Backend {
 public:
  void run(const Op& op) override {
    std::visit([](const auto& o) { o.validate(), reference::run(o); }, op);
  }
};

template <class O>
concept Accelerated = requires(const O& op, cpu::Workspace& workspace) {
  cpu::run(op, workspace);
};

class Cpu final : public Backend {
 public:
  void run(const Op& op) override {
    std::visit(
        [this]<class O>(const O& o) {
          o.validate();
          if constexpr (Accelerated<O>)
            cpu::run(o, workspace_);
          else
            reference::run(o);
        },
        op);
  }

 private:
  cpu::Workspace workspace_;
};

template <class... O>
std::vector<std::string_view> accelerated_of(const std::variant<O...>*) {
  std::vector<std::string_view> names;
  ((Accelerated<O> ? names.push_back(O::name) : void()), ...);
  return names;
}

template <class T, int Rank>
i64 bytes_of(const View<T, Rank>& view) {
  return view.size() * static_cast<i64>(sizeof(T));
}
template <class T, int Rank>
i64 bytes_of(const Sum<T, Rank>& view) {
  return 2 * view.size() * static_cast<i64>(sizeof(T));
}
template <class T, int Rank>
i64 bytes_of(const InOut<T, Rank>& view) {
  return 2 * view.size() * static_cast<i64>(sizeof(T));
}
i64 bytes_of(const Matrix& matrix) { return static_cast<i64>(matrix.bytes.size()); }

i64 bytes_of(const auto&) { return 0; }  // a scalar

// The tables' unread rows and the caches' unused positions are not moved.
i64 bytes_moved(const auto& op) {
  i64 total = 0;
  op.fields([&](const char*, const auto& field) { total += bytes_of(field); }, op);
  return total;
}
i64 bytes_moved(const Embedding& op) {
  return bytes_of(op.y) + bytes_of(op.tokens) + op.tokens.size() * op.table.row_bytes();
}
i64 bytes_moved(const EmbeddingBackward& op) { return 3 * bytes_of(op.dy) + bytes_of(op.tokens); }
i64 bytes_moved(const CacheAppend& op) { return 2 * bytes_of(op.k) + 2 * op.k.size() * size_of(op.keys.dtype); }
// Columns in which there is something other than 0.
i64 live_columns(const In<float, 2>& values) {
  i64 live = 0;
  for (i64 i = 0; i < values.shape(1); ++i) {
    bool any = false;
    for (i64 n = 0; n < values.shape(0); ++n) any |= values(n, i) != 0;
    live += any;
  }
  return live;
}
i64 bytes_moved(const SelectedMatmul& op) {
  return bytes_of(op.y) + bytes_of(op.x) + bytes_of(op.s) + live_columns(op.s) * op.w.row_bytes();
}
i64 bytes_moved(const SkippingMatmul& op) {
  return bytes_of(op.y) + bytes_of(op.x) +
         static_cast<i64>(static_cast<double>(live_columns(op.x)) * op.t.bytes_per_row());
}
i64 bytes_moved(const CachedAttention& op) {
  const i64 positions = op.start + op.q.shape(0);
  return 2 * bytes_of(op.y) + 2 * positions * op.groups * op.keys.cols * size_of(op.keys.dtype);
}

}  // namespace

i64 bytes(const Op& op) {
  return std::visit([](const auto& o) { return bytes_moved(o); }, op);
}

std::unique_ptr<Backend> make_backend(std::string_view name) {
  if (name == "cpu") return std::make_unique<Cpu>();
  if (name == "reference") return std::make_unique<Reference>();
  fail_unknown("backend", name, std::vector<std::string>{"cpu", "reference"}, "--backend", Exit::usage);
}

std::vector<std::string_view> accelerated_operations() { return accelerated_of(static_cast<const Op*>(nullptr)); }
std::vector<std::string> instruction_sets() { return cpu::targets(); }

}  // namespace sparsam
