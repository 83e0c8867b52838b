#include "ops/decorators.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "ops/reference/bounded.h"
#include "ops/reference/reference.h"

namespace sparsam {

namespace {

using reference::Bounded;

// The reference's operands: the operation's, converted to Bounded, with results of their own.
class Twin {
 public:
  template <template <class> class O>
  O<Bounded> of(const O<float>& op) {
    O<Bounded> twin{};
    O<float>::fields([this](const char*, auto& to, const auto& from) { this->convert(to, from); }, twin, op);
    return twin;
  }

 private:
  template <int Rank>
  View<Bounded, Rank> copy(View<const float, Rank> from) {
    if (from.empty()) return {};
    auto& values = values_.emplace_back(from.begin(), from.end());
    return {values.data(), from.shape()};
  }
  template <int Rank>
  void convert(In<Bounded, Rank>& to, const In<float, Rank>& from) {
    to = copy<Rank>(from);
  }
  template <int Rank>
  void convert(Sum<Bounded, Rank>& to, const Sum<float, Rank>& from) {
    to = copy<Rank>(from);
  }
  template <int Rank>
  void convert(InOut<Bounded, Rank>& to, const InOut<float, Rank>& from) {
    to = copy<Rank>(from);
  }
  template <int Rank>
  void convert(Out<Bounded, Rank>& to, const Out<float, Rank>& from) {
    to = copy<Rank>(from);
    std::fill(to.begin(), to.end(), Bounded(std::nan("")));
  }
  void convert(Out<double, 1>& to, const Out<double, 1>& from) {
    to = {doubles_.emplace_back(from.begin(), from.end()).data(), from.shape()};
  }
  void convert(MutableMatrix& to, const MutableMatrix& from) {
    to = from;
    to.bytes = bytes_.emplace_back(from.bytes.begin(), from.bytes.end());
  }
  template <class To, class From>
  void convert(To& to, const From& from) {  // tokens, weights and scalars are only read
    to = static_cast<To>(from);
  }

  std::deque<std::vector<Bounded>> values_;
  std::deque<std::vector<double>> doubles_;
  std::deque<std::vector<std::byte>> bytes_;
};

// Elementary functions of a few units in the last place, and the order of the factors of a product: 4 times the bound.
// Intermediate numbers below 2^-126 may be flushed to zero, and multiplied by thousands afterwards.
double tolerance(const Bounded& expected) { return 4 * expected.error + 0x1p-110; }

bool within(double found, double expected, double tolerance) {
  if (std::isnan(found) || std::isnan(expected)) return std::isnan(found) && std::isnan(expected);
  return found == expected || std::abs(found - expected) <= tolerance;
}

// Compares each result of an operation and reports the first element of it that is wrong; passes over its operands.
class Comparison {
 public:
  Comparison(std::string_view operation, i64 flops, const Expectation::Report& report)
      : operation_(operation), flops_(flops), report_(report) {}

  void operator()(const char* field, const auto& expected, const auto& found) const {
    if constexpr (requires { this->compare(field, expected, found); }) compare(field, expected, found);
  }

 private:
  template <int Rank>
  void compare(const char* field, const View<Bounded, Rank>& expected, const View<float, Rank>& found) const {
    for (i64 i = 0; i < found.size(); ++i) {
      const Bounded& value = expected.data()[i];
      if (!accept(field, i, static_cast<double>(found.data()[i]), value.value, tolerance(value))) return;
    }
  }
  // The one result in double is a sum, of as many roundings as the operation has flops.
  void compare(const char* field, const View<double, 1>& expected, const View<double, 1>& found) const {
    const double rounding = static_cast<double>(flops_) * 0x1p-53 * std::abs(expected[0]);
    accept(field, 0, found[0], expected[0], rounding);
  }
  // Storing rounds to nearest even: exact.
  void compare(const char* field, const MutableMatrix& expected, const MutableMatrix& found) const {
    const Matrix want = expected, have = found;
    for (i64 i = 0; i < want.rows; ++i)
      for (i64 j = 0; j < want.cols; ++j)
        if (!accept(field, i * want.cols + j, have.at<double>(i, j), want.at<double>(i, j), 0)) return;
  }
  bool accept(const char* field, i64 index, double found, double expected, double tolerance) const {
    const bool ok = within(found, expected, tolerance);
    if (!ok) report_({operation_, field, index, found, expected, tolerance});
    return ok;
  }

  std::string_view operation_;
  i64 flops_;
  const Expectation::Report& report_;
};

template <class... O>
std::vector<Usage> unused(const std::variant<O...>*) {
  return {Usage{.operation = O::name}...};
}
std::vector<Usage> unused() { return unused(static_cast<const Op*>(nullptr)); }

void count(Usage& usage, const Op& op) {
  ++usage.calls;
  usage.flops += flops(op);
  usage.bytes += bytes(op);
}

std::vector<Usage> used(std::vector<Usage> usage) {
  std::erase_if(usage, [](const Usage& u) { return u.calls == 0; });
  return usage;
}

}  // namespace

std::string Mismatch::text() const {
  return fmt::format("{}.{}[{}] is {:.9g}, the reference says {:.9g}; they may differ by {:.2g}, not by {:.2g}",
                     operation, field, index, found, expected, tolerance, std::abs(found - expected));
}

struct Expectation::Impl {
  Op op;
  Twin operands;
  std::vector<std::function<void(const Comparison&)>> comparisons;  // with each result that would be right

  template <class O>
  void expect(const O& op, const O& found) {
    const auto expected = operands.of(op);
    reference::run(expected);
    comparisons.push_back([expected, &found](const Comparison& compare) { O::fields(compare, expected, found); });
  }
};

Expectation::Expectation(const Op& op) : impl_(std::make_unique<Impl>(Impl{op, {}, {}})) {
  std::visit(
      [this]<class O>(const O& found) {
        found.validate();
        impl_->expect(found, found);
        if constexpr (requires { found.compute; })
          if (found.compute == Compute::bf16) {
            O exact = found;
            exact.compute = Compute::f32;
            impl_->expect(exact, found);
          }
      },
      impl_->op);
}
Expectation::Expectation(Expectation&&) noexcept = default;
Expectation::~Expectation() = default;

void Expectation::compare(const Report& report) const {
  std::vector<Mismatch> first;
  for (const auto& comparison : impl_->comparisons) {
    std::vector<Mismatch> mismatches;
    const Report collect = [&](const Mismatch& mismatch) { mismatches.push_back(mismatch); };
    comparison(Comparison(name_of(impl_->op), flops(impl_->op), collect));
    if (mismatches.empty()) return;
    if (first.empty()) first = std::move(mismatches);
  }
  for (const Mismatch& mismatch : first) report(mismatch);
}

Checked::Checked(Backend& inner) : Checked(inner, [](const Mismatch& mismatch) { throw Error(mismatch.text()); }) {}

void Checked::run(const Op& op) {
  const Expectation expectation(op);
  inner_.run(op);
  expectation.compare(report_);
}

Counted::Counted(Backend& inner) : inner_(inner), usage_(unused()) {}
void Counted::run(const Op& op) {
  count(usage_[op.index()], op);
  inner_.run(op);
}
std::vector<Usage> Counted::usage() const { return used(usage_); }
void Counted::reset() { usage_ = unused(); }

Timed::Timed(Backend& inner) : inner_(inner), usage_(unused()) {}
void Timed::run(const Op& op) {
  const Stopwatch watch;
  inner_.run(op);
  usage_[op.index()].seconds += watch.seconds();
  count(usage_[op.index()], op);
}
std::vector<Usage> Timed::usage() const { return used(usage_); }
void Timed::reset() { usage_ = unused(); }

std::string usage_table(std::span<const Usage> usage) {
  std::vector<Usage> rows(usage.begin(), usage.end());
  std::stable_sort(rows.begin(), rows.end(), [](const Usage& a, const Usage& b) { return a.seconds > b.seconds; });
  double total = 0;
  for (const Usage& row : rows) total += row.seconds;
  std::string text =
      fmt::format("{:<28}{:>8}{:>12}{:>8}{:>10}{:>8}\n", "operation", "calls", "seconds", "share", "GFLOP/s", "GB/s");
  for (const Usage& row : rows) {
    const auto per_second = [&](i64 amount) { return row.seconds > 0 ? static_cast<double>(amount) / row.seconds : 0; };
    text += fmt::format("{:<28}{:>8}{:>12.6f}{:>7.1f}%{:>10.1f}{:>8.1f}\n", row.operation, row.calls, row.seconds,
                        total > 0 ? 100 * row.seconds / total : 0, per_second(row.flops) / 1e9,
                        per_second(row.bytes) / 1e9);
  }
  return text;
}

}  // namespace sparsam
