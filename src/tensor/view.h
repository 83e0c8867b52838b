// View: a pointer and a shape, row-major and contiguous. It owns nothing and copies freely.
//   In<Real, R>     read                        Out<Real, R>    overwritten      y  = ...
//   Sum<Real, R>    accumulated  dw += ...      InOut<Real, R>  read and overwritten
// An empty view (no data) stands for an absent optional operand.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "base/types.h"

namespace sparsam {

template <int Rank>
using Shape = std::array<i64, Rank>;

template <size_t Rank>
i64 count(const std::array<i64, Rank>& shape) {
  return std::accumulate(shape.begin(), shape.end(), i64{1}, std::multiplies<>());
}

template <class T, int Rank>
class View {
 public:
  static constexpr int rank = Rank;
  using Element = T;

  View() = default;
  View(T* data, Shape<Rank> shape) : data_(data), shape_(shape) {}
  // A view of mutable elements is also a view of constant ones.
  operator View<const T, Rank>() const  // NOLINT(google-explicit-constructor)
      requires(!std::is_const_v<T>) {
    return {data_, shape_};
  }

  T* data() const { return data_; }
  const Shape<Rank>& shape() const { return shape_; }
  i64 shape(int axis) const { return shape_[static_cast<size_t>(axis)]; }
  i64 size() const { return data_ ? count(shape_) : 0; }
  bool empty() const { return data_ == nullptr; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size(); }
  std::span<T> span() const { return {data_, static_cast<size_t>(size())}; }

  // Element by full index. Unchecked: shapes are checked once, at the boundary of an operation.
  template <class... Index>
  T& operator()(Index... index) const requires(sizeof...(Index) == Rank) {
    i64 offset = 0;
    size_t axis = 0;
    ((offset = offset * shape_[axis++] + static_cast<i64>(index)), ...);
    return data_[offset];
  }
  // The sub-view at `index` of the first axis.
  View<T, Rank - 1> operator[](i64 index) const requires(Rank > 1) {
    Shape<Rank - 1> rest;
    std::copy(shape_.begin() + 1, shape_.end(), rest.begin());
    return {data_ + index * count(rest), rest};
  }
  T& operator[](i64 index) const requires(Rank == 1) { return data_[index]; }
  // Rows [begin, begin + length) of the first axis.
  View slice(i64 begin, i64 length) const {
    Shape<Rank> shape = shape_;
    const i64 row = shape[0] ? count(shape) / shape[0] : 0;
    shape[0] = length;
    return {data_ + begin * row, shape};
  }
  // The same elements under another shape of equal size.
  template <class... Sizes>
  View<T, static_cast<int>(sizeof...(Sizes))> as(Sizes... sizes) const {
    const Shape<static_cast<int>(sizeof...(Sizes))> shape{static_cast<i64>(sizes)...};
    check(empty() || count(shape) == count(shape_), "reshape of {} elements to {}", count(shape_), count(shape));
    return {data_, shape};
  }

 private:
  T* data_ = nullptr;
  Shape<Rank> shape_{};
};

template <class Real, int Rank>
using In = View<const Real, Rank>;
template <class Real, int Rank>
using Out = View<Real, Rank>;
template <class Real, int Rank>
struct Sum : View<Real, Rank> {
  Sum() = default;
  Sum(View<Real, Rank> view) : View<Real, Rank>(view) {}  // NOLINT(google-explicit-constructor)
};
template <class Real, int Rank>
struct InOut : View<Real, Rank> {
  InOut() = default;
  InOut(View<Real, Rank> view) : View<Real, Rank>(view) {}  // NOLINT(google-explicit-constructor)
};

template <size_t Rank>
std::string to_string(const std::array<i64, Rank>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < Rank; ++i) text += fmt::format("{}{}", i ? ", " : "", shape[i]);
  return text + ")";
}

// Aborts unless the shape of `view` is `expected`; `what` names the operand: "Matmul.x".
template <class T, int Rank>
void check_shape(const View<T, Rank>& view, std::type_identity_t<Shape<Rank>> expected, const char* what,
                 Place where = Place::here()) {
  const bool there = !view.empty() || count(expected) == 0;
  if (there && view.shape() == expected) [[likely]]
    return;  // before any text is made: every operation comes here
  check(there, {"{} is empty, expected {}", where}, what, to_string(expected));
  check(false, {"{} is {}, expected {}", where}, what, to_string(view.shape()), to_string(expected));
}
// The same for an optional operand.
template <class T, int Rank>
void check_optional_shape(const View<T, Rank>& view, std::type_identity_t<Shape<Rank>> expected, const char* what,
                          Place where = Place::here()) {
  if (!view.empty()) check_shape(view, expected, what, where);
}

}  // namespace sparsam
