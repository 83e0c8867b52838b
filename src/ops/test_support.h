// For tests of operations: random operands, and the proof of a backward by central differences.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/threads.h"
#include "ops/reference/reference.h"

namespace sparsam {

// Owns operands. Each ends where its memory ends, so that AddressSanitizer sees a read or write past it, and begins
// `lead` elements into it, so that it is not aligned.
class Operands {
 public:
  explicit Operands(u64 seed, i64 lead = 0) : random_(seed), lead_(lead) {}

  template <class T, class... Sizes>
  View<T, static_cast<int>(sizeof...(Sizes))> filled(T value, Sizes... sizes) {
    const Shape<static_cast<int>(sizeof...(Sizes))> shape{static_cast<i64>(sizes)...};
    return {allocate<T>(count(shape), value), shape};
  }
  // Normal of mean 0 and deviation 1, or of another deviation.
  template <class Real = float, class... Sizes>
  View<Real, static_cast<int>(sizeof...(Sizes))> normal(Sizes... sizes) {
    return scaled<Real>(1, sizes...);
  }
  template <class Real = float, class... Sizes>
  View<Real, static_cast<int>(sizeof...(Sizes))> scaled(double deviation, Sizes... sizes) {
    const auto view = filled(Real{0}, sizes...);
    for (Real& x : view) x = static_cast<Real>(deviation * random_.normal());
    return view;
  }
  View<i32, 1> below(i64 limit, i64 n) {
    const auto view = filled(i32{0}, n);
    for (i32& x : view) x = static_cast<i32>(random_.below(static_cast<u64>(limit)));
    return view;
  }
  MutableMatrix matrix(DType dtype, i64 rows, i64 cols, double deviation = 1) {
    const i64 size = bytes_for(dtype, rows * cols);
    MutableMatrix m{dtype, rows, cols, {}};
    if (is_quantised(dtype)) {
      m.bytes = {reinterpret_cast<std::byte*>(allocate<u8>(size, 0)), static_cast<size_t>(size)};
      for (i64 i = 0; i < rows; ++i)
        quantize_row(dtype, scaled<float>(deviation, cols).span(), {}, m.bytes.data() + i * bytes_for(dtype, cols));
      return m;
    }
    std::byte* data = size_of(dtype) == 2   ? reinterpret_cast<std::byte*>(allocate<u16>(rows * cols, 0))
                      : size_of(dtype) == 8 ? reinterpret_cast<std::byte*>(allocate<double>(rows * cols, 0))
                                            : reinterpret_cast<std::byte*>(allocate<float>(rows * cols, 0));
    m.bytes = {data, static_cast<size_t>(size)};
    for (i64 i = 0; i < rows; ++i)
      for (i64 j = 0; j < cols; ++j) m.set(i, j, deviation * random_.normal());
    return m;
  }

 private:
  template <class T>
  T* allocate(i64 n, T value) {
    auto& bytes = bytes_.emplace_back(static_cast<size_t>(n + lead_) * sizeof(T));
    T* data = reinterpret_cast<T*>(bytes.data()) + lead_;
    std::fill(data, data + n, value);
    return data;
  }
  Random random_;
  i64 lead_;
  std::deque<std::vector<std::byte>> bytes_;
};

// The number of threads within a scope.
class Threads {
 public:
  explicit Threads(int count) : before_(threads()) { set_threads(count); }
  ~Threads() { set_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

namespace detail {

template <int Rank>
std::span<double> doubles(const View<double, Rank>& view) {
  return view.span();
}
template <int Rank>
std::span<double> doubles(const View<const double, Rank>& view) {  // of the test's own operands, which are not constant
  return {const_cast<double*>(view.data()), static_cast<size_t>(view.size())};
}
inline std::span<double> doubles(const Matrix& m) {
  return {const_cast<double*>(m.as<double>()), static_cast<size_t>(m.size())};
}

template <class Field>
constexpr bool is_written(const Field&) {
  if constexpr (requires { typename Field::Element; }) return !std::is_const_v<typename Field::Element>;
  return false;
}

template <class O>
std::span<double> member(const O& op, std::string_view wanted) {
  std::span<double> found;
  const auto look = [&](const char* name, const auto& field) {
    if constexpr (requires { doubles(field); })
      if (name == wanted) found = doubles(field);
  };
  O::fields(look, op);
  return found;
}

}  // namespace detail

// Proves each gradient dX that `backward` gives against central differences of the objective sum_i dy_i y_i of
// `forward` in its operand X (and of further results that have a gradient), and that Sums are added to and other
// results overwritten. The two operations share their operands and what the forward keeps for the backward; without dy
// the objective is scale sum_i y_i. All operands in double and of size 1. (f(x + h) - f(x - h)) / 2h is off by h^2
// |f'''| / 6 and, where f rounds to eps |f|, by eps |f| / h: with h = cbrt(eps) both are a multiple of eps^(2/3)
// = 3.7e-11, and 100 of that allows for a third derivative of 600 |f|.
template <class Forward, class Backward>
void check_gradients(const Forward& forward, const Backward& backward) {
  const Threads one(1);  // the operands are too small to share
  const double eps = std::numeric_limits<double>::epsilon(), h = std::cbrt(eps);
  struct Objective {
    std::span<double> y, dy;
  };
  std::vector<Objective> outputs;  // the first member, "y", and whatever else has a gradient that comes in
  Forward::fields(
      [&]<class Field>(const char* name, const Field& field) {
        if constexpr (requires { detail::doubles(field); }) {
          const auto dy = detail::member(backward, std::string("d") + name);
          if (outputs.empty() || (!std::is_same_v<Field, Matrix> && detail::is_written(field) && !dy.empty()))
            outputs.push_back({detail::doubles(field), dy});
        }
      },
      forward);
  double scale = 1;
  if constexpr (requires { scale = backward.scale; }) scale = outputs[0].dy.empty() ? backward.scale : 1;
  double size = 0;  // sum_i |dy_i y_i|, of the last evaluation
  const auto objective = [&] {
    reference::run(forward);
    double sum = size = 0;
    for (const auto& [y, dy] : outputs)
      for (size_t i = 0; i < y.size(); ++i) {
        const double term = (dy.empty() ? scale : dy[i]) * y[i];
        sum += term, size += std::abs(term);
      }
    return sum;
  };

  objective();
  std::vector<std::pair<std::string, std::vector<double>>> results;  // with what Sums held before
  const auto prepare = [&]<class Field>(const char* name, const Field& field) {
    if constexpr (requires {
                    Field::rank;
                    typename Field::Element;
                  })
      if constexpr (std::is_same_v<typename Field::Element, double>) {
        const bool sums = std::is_same_v<Field, Sum<double, Field::rank>>;
        if (!sums) std::fill(field.begin(), field.end(), std::nan(""));
        if (!field.empty())
          results.emplace_back(name,
                               sums ? std::vector(field.begin(), field.end()) : std::vector(field.span().size(), 0.0));
      }
  };
  Backward::fields(prepare, backward);
  reference::run(backward);

  int proved = 0;
  for (const auto& [name, before] : results) {
    const std::span<double> x = detail::member(forward, name.substr(1)), gradient = detail::member(backward, name);
    if (name[0] != 'd' || x.empty()) continue;  // not a gradient: the loss
    ++proved;
    ASSERT_EQ(x.size(), gradient.size()) << name;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = x[i];
      x[i] = exact + h;
      const double above = objective(), step_up = x[i] - exact;
      x[i] = exact - h;
      const double below = objective(), step_down = exact - x[i];
      x[i] = exact;
      const double difference = (above - below) / (step_up + step_down), found = gradient[i] - before[i];
      ASSERT_NEAR(found, difference, 100 * std::cbrt(eps * eps) * (size + std::abs(difference)))
          << Backward::name << "." << name << "[" << i << "]";
    }
  }
  objective();  // leaves the results of the true operands
  EXPECT_GT(proved, 0) << Backward::name << " has no gradient of an operand of " << Forward::name;
}

}  // namespace sparsam
