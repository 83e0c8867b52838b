#include "ops/cpu/gemm.h"

#include <omp.h>

#include <dnnl.hpp>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "tensor/arena.h"

namespace sparsam::cpu {

namespace {

using dnnl::memory;

// Everything a compiled product depends on.
struct Key {
  i64 m, n, k, a_row, a_col, b_row, b_col, c_stride;
  DType dtype;
  bool accumulate, bias;
  int threads;  // 1 inside a parallel region

  auto tie() const { return std::tie(m, n, k, a_row, a_col, b_row, b_col, c_stride, dtype, accumulate, bias, threads); }
  bool operator<(const Key& other) const { return tie() < other.tie(); }
};

Key key_of(const Gemm& g) {
  return {g.m,
          g.n,
          g.k,
          g.a.row_stride,
          g.a.col_stride,
          g.b.row_stride,
          g.b.col_stride,
          g.c_stride,
          g.a.dtype,
          g.accumulate,
          g.bias != nullptr,
          omp_in_parallel() ? 1 : omp_get_max_threads()};
}

// Products created inside a parallel region must be planned for one thread; the setting is this thread's own.
class PlannedThreads {
 public:
  explicit PlannedThreads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~PlannedThreads() { omp_set_num_threads(before_); }
  PlannedThreads(const PlannedThreads&) = delete;
  PlannedThreads& operator=(const PlannedThreads&) = delete;

 private:
  int before_;
};

// A compiled product with its arguments, whose addresses change from call to call.
struct Product {
  dnnl::matmul primitive;
  memory a, b, c, bias, scratchpad;
  std::unordered_map<int, memory> arguments;
  size_t scratch_bytes;
};

// What one caller at a time needs.
struct Lane {
  dnnl::stream stream;
  std::map<Key, Product> products;
  Buffer scratch;
};

memory::desc describe(i64 rows, i64 cols, DType dtype, i64 row_stride, i64 col_stride) {
  return {{rows, cols},
          dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32,
          memory::dims{row_stride, col_stride}};
}

Product compile(const Key& key, const dnnl::engine& engine) {
  const PlannedThreads planned(key.threads);
  const memory::desc a = describe(key.m, key.k, key.dtype, key.a_row, key.a_col);
  const memory::desc b = describe(key.k, key.n, key.dtype, key.b_row, key.b_col);
  const memory::desc c = describe(key.m, key.n, DType::f32, key.c_stride, 1);
  const memory::desc bias = describe(1, key.n, DType::f32, key.n, 1);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum();
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::desc description = key.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
  const dnnl::matmul::primitive_desc plan(description, attributes, engine);
  const auto argument = [&](const memory::desc& d) { return memory(d, engine, DNNL_MEMORY_NONE); };
  Product product{dnnl::matmul(plan),
                  argument(a),
                  argument(b),
                  argument(c),
                  argument(bias),
                  argument(plan.scratchpad_desc()),
                  {},
                  plan.scratchpad_desc().get_size()};
  product.arguments = {{DNNL_ARG_SRC, product.a},
                       {DNNL_ARG_WEIGHTS, product.b},
                       {DNNL_ARG_DST, product.c},
                       {DNNL_ARG_SCRATCHPAD, product.scratchpad}};
  if (key.bias) product.arguments.emplace(DNNL_ARG_BIAS, product.bias);
  return product;
}

}  // namespace

struct GemmCache::Impl {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::mutex mutex;
  std::vector<std::unique_ptr<Lane>> free;

  std::unique_ptr<Lane> take() {
    const std::lock_guard lock(mutex);
    if (free.empty()) return std::make_unique<Lane>(Lane{dnnl::stream(engine), {}, {}});
    std::unique_ptr<Lane> lane = std::move(free.back());
    free.pop_back();
    return lane;
  }
  void give(std::unique_ptr<Lane> lane) {
    const std::lock_guard lock(mutex);
    free.push_back(std::move(lane));
  }
};

GemmCache::GemmCache() : impl_(std::make_unique<Impl>()) {}
GemmCache::~GemmCache() = default;

void gemm(const Gemm& g, GemmCache& cache) {
  check(g.a.dtype == g.b.dtype && (g.a.dtype == DType::f32 || g.a.dtype == DType::bf16), "gemm: factors of {} and {}",
        name_of(g.a.dtype), name_of(g.b.dtype));
  check(g.k > 0 && !(g.accumulate && g.bias), "gemm: k = {}", g.k);
  if (g.m == 0 || g.n == 0) return;
  std::unique_ptr<Lane> lane = cache.impl_->take();
  const Key key = key_of(g);
  auto found = lane->products.find(key);
  if (found == lane->products.end()) found = lane->products.emplace(key, compile(key, cache.impl_->engine)).first;
  Product& product = found->second;
  if (static_cast<i64>(product.scratch_bytes) > lane->scratch.size())
    lane->scratch = Buffer(static_cast<i64>(product.scratch_bytes));
  product.a.set_data_handle(const_cast<void*>(g.a.data));
  product.b.set_data_handle(const_cast<void*>(g.b.data));
  product.c.set_data_handle(g.c);
  product.bias.set_data_handle(const_cast<float*>(g.bias));
  product.scratchpad.set_data_handle(lane->scratch.data());
  product.primitive.execute(lane->stream, product.arguments);
  lane->stream.wait();
  cache.impl_->give(std::move(lane));
}

}  // namespace sparsam::cpu
