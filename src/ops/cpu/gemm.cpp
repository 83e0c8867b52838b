#include "ops/cpu/gemm.h"

#include <omp.h>

#include <dnnl.hpp>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "ops/cpu/convert.h"

namespace sparsam::cpu {

namespace {

using dnnl::memory;

// Everything a compiled product depends on.
struct Key {
  i64 m, n, k, a_row, a_col, b_row, b_col, c_stride;
  int b_layout;
  DType dtype;
  bool accumulate, bias;
  int threads;  // 1 inside a parallel region

  auto tie() const {
    return std::tie(m, n, k, a_row, a_col, b_row, b_col, c_stride, b_layout, dtype, accumulate, bias, threads);
  }
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
          g.b.layout,
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
  i64 scratch_bytes;
};

// What one caller at a time needs.
struct Lane {
  dnnl::stream stream;
  std::map<Key, Product> products;
  Buffer scratch, a, b;
};

memory::data_type type_of(DType dtype) {
  return dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc describe(i64 rows, i64 cols, DType dtype, i64 row_stride, i64 col_stride) {
  return {{rows, cols}, type_of(dtype), memory::dims{row_stride, col_stride}};
}

// Where the processor lacks bf16 products, factors are widened and multiplied as f32.
bool multiplies_bf16() {
  const int wanted = static_cast<int>(dnnl::cpu_isa::avx512_core_bf16);
  return (static_cast<int>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
}

memory::desc describe_b(const Key& key) { return describe(key.k, key.n, key.dtype, key.b_row, key.b_col); }

Product compile(const Key& key, const memory::desc& b, const dnnl::engine& engine) {
  const PlannedThreads planned(key.threads);
  const memory::desc a = describe(key.m, key.k, key.dtype, key.a_row, key.a_col);
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
                  static_cast<i64>(plan.scratchpad_desc().get_size())};
  product.arguments = {{DNNL_ARG_SRC, product.a},
                       {DNNL_ARG_WEIGHTS, product.b},
                       {DNNL_ARG_DST, product.c},
                       {DNNL_ARG_SCRATCHPAD, product.scratchpad}};
  if (key.bias) product.arguments.emplace(DNNL_ARG_BIAS, product.bias);
  return product;
}

struct Layout {
  memory::desc description;
  i64 panel;  // columns to a panel as pack_panels() makes them; 0: another layout
};

Layout preferred_layout(i64 k, i64 n, DType dtype, const dnnl::engine& engine) {
  constexpr i64 rows = 256;
  const PlannedThreads planned(1);
  const memory::desc any({k, n}, type_of(dtype), memory::format_tag::any);
  const dnnl::matmul::desc product(describe(rows, k, dtype, k, 1), any, describe(rows, n, DType::f32, n, 1));
  const memory::desc wanted = dnnl::matmul::primitive_desc(product, engine).weights_desc();
  using Tag = memory::format_tag;
  constexpr std::pair<Tag, i64> panels[] = {
      {Tag::BA16a64b2a, 64}, {Tag::BA16a48b2a, 48}, {Tag::BA16a32b2a, 32}, {Tag::BA16a16b2a, 16}};
  for (const auto& [tag, panel] : panels)
    if (dtype == DType::bf16 && wanted == memory::desc({k, n}, memory::data_type::bf16, tag)) return {wanted, panel};
  return {wanted, 0};
}

std::byte* at_least(Buffer& buffer, i64 bytes) {
  if (buffer.size() < bytes) buffer = Buffer(bytes);
  return buffer.data();
}

// The same factor as f32, in `buffer`; on all threads outside parallel regions.
void widen(GemmOperand& operand, i64 rows, i64 cols, Buffer& buffer) {
  if (operand.dtype == DType::f32) return;
  const i64 extent = (rows - 1) * operand.row_stride + (cols - 1) * operand.col_stride + 1;
  float* f32 = reinterpret_cast<float*>(at_least(buffer, extent * static_cast<i64>(sizeof(float))));
  to_float_parallel(operand.data, operand.dtype, f32, extent);
  operand.data = f32, operand.dtype = DType::f32;
}

}  // namespace

struct GemmCache::Impl {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const bool native_bf16 = multiplies_bf16();
  std::mutex mutex;  // of what follows
  std::vector<std::unique_ptr<Lane>> free;
  std::vector<Layout> layouts;  // of packed factors; number 1 is the first
  std::map<std::tuple<i64, i64, DType>, int> numbers;

  std::unique_ptr<Lane> take() {
    const std::lock_guard lock(mutex);
    if (free.empty()) return std::make_unique<Lane>(Lane{dnnl::stream(engine), {}, {}, {}, {}});
    std::unique_ptr<Lane> lane = std::move(free.back());
    free.pop_back();
    return lane;
  }
  void give(std::unique_ptr<Lane> lane) {
    const std::lock_guard lock(mutex);
    free.push_back(std::move(lane));
  }
  Layout layout(int number) {
    const std::lock_guard lock(mutex);
    return layouts[static_cast<size_t>(number - 1)];
  }
  // The number of the layout that oneDNN prefers for B; a typical number of rows stands for all.
  int layout_of(i64 k, i64 n, DType dtype) {
    if (!native_bf16) dtype = DType::f32;
    const std::lock_guard lock(mutex);
    int& number = numbers[{k, n, dtype}];
    if (number == 0) {
      layouts.push_back(preferred_layout(k, n, dtype, engine));
      number = static_cast<int>(layouts.size());
    }
    return number;
  }
};

GemmCache::GemmCache() : impl_(std::make_unique<Impl>()) {}
GemmCache::~GemmCache() = default;

void gemm(const Gemm& product, GemmCache& cache) {
  Gemm g = product;
  if (g.m == 1 && g.a.col_stride == 1) g.a.row_stride = g.k;  // the stride of a single row means nothing
  check((g.a.dtype == g.b.dtype || g.b.layout) && (g.a.dtype == DType::f32 || g.a.dtype == DType::bf16),
        "gemm: factors of {} and {}", name_of(g.a.dtype), name_of(g.b.dtype));
  check(g.k > 0 && !(g.accumulate && g.bias), "gemm: k = {}", g.k);
  check(!g.b.layout || (g.c_stride == g.n && (g.a.col_stride != 1 || g.a.row_stride == g.k)),
        "gemm: strides {} and {} with a packed factor", g.a.row_stride, g.c_stride);
  if (g.m == 0 || g.n == 0) return;
  std::unique_ptr<Lane> lane = cache.impl_->take();
  if (!cache.impl_->native_bf16) widen(g.a, g.m, g.k, lane->a), widen(g.b, g.k, g.n, lane->b);
  const Key key = key_of(g);
  auto found = lane->products.find(key);
  if (found == lane->products.end()) {
    const memory::desc b = key.b_layout ? cache.impl_->layout(key.b_layout).description : describe_b(key);
    found = lane->products.emplace(key, compile(key, b, cache.impl_->engine)).first;
  }
  Product& p = found->second;
  p.a.set_data_handle(const_cast<void*>(g.a.data));
  p.b.set_data_handle(const_cast<void*>(g.b.data));
  p.c.set_data_handle(g.c);
  p.bias.set_data_handle(const_cast<float*>(g.bias));
  p.scratchpad.set_data_handle(at_least(lane->scratch, p.scratch_bytes));
  p.primitive.execute(lane->stream, p.arguments);
  lane->stream.wait();
  cache.impl_->give(std::move(lane));
}

i64 packed_bytes(i64 k, i64 n, DType dtype, GemmCache& cache) {
  return static_cast<i64>(cache.impl_->layout(cache.impl_->layout_of(k, n, dtype)).description.get_size());
}

GemmOperand pack(const GemmOperand& b, i64 k, i64 n, DType dtype, std::byte* to, GemmCache& cache) {
  GemmCache::Impl& impl = *cache.impl_;
  const int number = impl.layout_of(k, n, dtype);
  const Layout layout = impl.layout(number);
  GemmOperand source = b;
  if (layout.panel && !(is_quantised(b.dtype) && b.col_stride == 1)) {
    const bool transposed = b.col_stride != 1;
    const PanelSource panels{b.data, b.dtype, transposed, k, n, transposed ? b.col_stride : b.row_stride};
    pack_panels_parallel(panels, layout.panel, reinterpret_cast<u16*>(to));
    return {to, dtype, 0, 0, number};
  }
  std::unique_ptr<Lane> lane = impl.take();
  if (source.dtype != dtype && dtype == DType::bf16) {
    const i64 extent = (k - 1) * source.row_stride + (n - 1) * source.col_stride + 1;
    u16* rounded = reinterpret_cast<u16*>(at_least(lane->a, extent * static_cast<i64>(sizeof(u16))));
    to_bf16_parallel(source.data, source.dtype, rounded, extent);
    source.data = rounded, source.dtype = DType::bf16;
  }
  if (!impl.native_bf16 || dtype == DType::f32) widen(source, k, n, lane->b);
  const memory::desc from = describe(k, n, source.dtype, source.row_stride, source.col_stride);
  memory input(from, impl.engine, const_cast<void*>(source.data)), output(layout.description, impl.engine, to);
  dnnl::reorder(input, output).execute(lane->stream, input, output);
  lane->stream.wait();
  impl.give(std::move(lane));
  return {to, impl.native_bf16 ? dtype : DType::f32, 0, 0, number};
}

GemmOperand pack(const GemmOperand& b, i64 k, i64 n, DType dtype, Arena& arena, GemmCache& cache) {
  return pack(b, k, n, dtype, arena.allocate<std::byte>(packed_bytes(k, n, dtype, cache)).data(), cache);
}

}  // namespace sparsam::cpu
