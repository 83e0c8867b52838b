// For tests of the cpu backend against the reference.
#pragma once

#include <cstring>

#include "ops/cpu/targets.h"
#include "ops/decorators.h"
#include "ops/test_support.h"

namespace sparsam {

// Lengths around the widths of vectors (4, 8, 16) and of blocks.
inline const std::vector<i64> ragged_sizes{1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 64, 65, 100, 128};
inline constexpr std::array<DType, 3> stored_dtypes{DType::f32, DType::bf16, DType::f16};
inline constexpr std::array<DType, 11> quantised_dtypes{DType::q8_0, DType::q4_0, DType::q4_1,  DType::q5_0,
                                                        DType::q5_1, DType::q2_k, DType::q3_k,  DType::q4_k,
                                                        DType::q5_k, DType::q6_k, DType::iq4_nl};
inline constexpr std::array<Compute, 2> computes{Compute::f32, Compute::bf16};
inline const float nan_f = std::numeric_limits<float>::quiet_NaN();

// The memory of all results of an operation.
inline std::vector<std::span<std::byte>> results(const Op& op) {
  std::vector<std::span<std::byte>> spans;
  const auto collect = [&]<class Field>(const char*, const Field& field) {
    if constexpr (std::is_same_v<Field, MutableMatrix>)
      spans.push_back(field.bytes);
    else if constexpr (requires { Field::rank; })
      if constexpr (!std::is_const_v<typename Field::Element>) spans.push_back(std::as_writable_bytes(field.span()));
  };
  std::visit([&]<class O>(const O& o) { O::fields(collect, o); }, op);
  return spans;
}
inline std::vector<std::vector<std::byte>> saved(const Op& op) {
  std::vector<std::vector<std::byte>> copies;
  for (const auto& span : results(op)) copies.emplace_back(span.begin(), span.end());
  return copies;
}
inline void restore(const Op& op, const std::vector<std::vector<std::byte>>& copies) {
  const auto spans = results(op);
  for (size_t i = 0; i < spans.size(); ++i) std::copy(copies[i].begin(), copies[i].end(), spans[i].begin());
}

// Runs operations on every instruction set of this processor and on 1, 2 and 3 threads.
class CpuTest : public ::testing::Test {
 protected:
  struct Setting {
    std::string target;
    int threads;
  };

  CpuTest() : backend_(make_backend("cpu")), reference_(make_backend("reference")) {
    for (const std::string& target : cpu::targets()) settings_.push_back({target, 2});
    settings_.push_back({settings_[0].target, 1});
    settings_.push_back({settings_[0].target, 3});
  }
  ~CpuTest() override {
    cpu::restrict_to("");
    set_threads(threads_before_);
  }

  // The results lie within the tolerance of the reference's, and a second run gives the same bits. `what` describes the
  // operation where it fails.
  void expect_right(const Op& op, const std::string& what = "") {
    const auto before = saved(op);
    const Expectation expectation(op);
    for (const Setting& setting : settings_) {
      if (::testing::Test::HasFailure()) return;  // the first is enough
      SCOPED_TRACE(std::string(name_of(op)) + " " + what + " on " + setting.target + ", " +
                   std::to_string(setting.threads) + " threads");
      use(setting);
      restore(op, before);
      backend_->run(op);
      expectation.compare([](const Mismatch& mismatch) { ADD_FAILURE() << mismatch.text(); });
      const auto first = saved(op);
      restore(op, before);
      backend_->run(op);
      EXPECT_EQ(first, saved(op)) << "another run gave other bits";
    }
  }
  // `op` in every setting, without comparison.
  template <class After>
  void run_everywhere(const Op& op, After&& after) {
    for (const Setting& setting : settings_) {
      SCOPED_TRACE(setting.target);
      use(setting);
      backend_->run(op);
      after();
    }
  }
  // To prepare operands: what a forward keeps for its backward.
  void run_reference(const Op& op) { reference_->run(op); }

 private:
  static void use(const Setting& setting) {
    cpu::restrict_to(setting.target);
    set_threads(setting.threads);
  }
  std::unique_ptr<Backend> backend_, reference_;
  std::vector<Setting> settings_;
  int threads_before_ = threads();
};

}  // namespace sparsam
