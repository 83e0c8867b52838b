// The vector functions against libm in double, over the whole range of float, on every target that this machine runs.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "base/types.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/math_test.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "ops/cpu/loops-inl.h"
#include "ops/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparsam::cpu::HWY_NAMESPACE {

void apply_functions(const float* x, float* exponential, float* sigmoids, float* rests, float* cdf, float* density,
                     i64 n) {
  for_vectors(n, [&](auto d, i64 i) HWY_ATTR {
    const auto v = hn::LoadU(d, x + i);
    auto c = hn::Zero(d), p = c, rest = c;
    normal_distribution(d, v, c, p);
    hn::StoreU(exp(d, v), d, exponential + i), hn::StoreU(sigmoid(d, v, rest), d, sigmoids + i);
    hn::StoreU(rest, d, rests + i);
    hn::StoreU(c, d, cdf + i), hn::StoreU(p, d, density + i);
  });
}

// Whether x^2 / 2 is rounded once in the normal distribution's exponent.
bool fused_multiply_add() { return HWY_NATIVE_FMA != 0; }

}  // namespace sparsam::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparsam::cpu {
HWY_EXPORT(apply_functions);
HWY_EXPORT(fused_multiply_add);
namespace {

// The largest relative error where the exact value is a normal float; smaller values must come out below 2^-126, too.
class Largest {
 public:
  void add(float got, double exact) {
    if (exact < 0x1p-126)
      EXPECT_LE(std::abs(got), 0x1.00001p-126f);
    else if (exact > static_cast<double>(std::numeric_limits<float>::max()))
      EXPECT_GT(got, 3.4e38f);
    else
      error_ = std::max(error_, std::abs(static_cast<double>(got) - exact) / exact);
  }
  double error() const { return error_; }

 private:
  double error_ = 0;
};

TEST(Math, AgreesWithLibmOverAllFloats) {
  std::vector<float> x;
  for (u64 bits = 0; bits < u64{1} << 32; bits += 8191) {
    const float value = std::bit_cast<float>(static_cast<u32>(bits));
    if (!std::isnan(value)) x.push_back(value);
  }
  for (float value = -20; value < 20; value += 0x1p-10f) x.push_back(value);
  for (const float value : {88.72283f, 88.72284f, -87.33654f, -87.34f}) x.push_back(value);
  const size_t n = x.size();
  std::vector<float> e(n), s(n), r(n), c(n), p(n);
  for (const i64 target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    HWY_DYNAMIC_DISPATCH(apply_functions)
    (x.data(), e.data(), s.data(), r.data(), c.data(), p.data(), static_cast<i64>(n));
    const bool fused = HWY_DYNAMIC_DISPATCH(fused_multiply_add)();
    Largest exponential, sigmoids, rests, cdf, density;
    for (size_t i = 0; i < n; ++i) {
      const double v = static_cast<double>(x[i]);
      exponential.add(e[i], std::exp(v));
      if (v > -87) sigmoids.add(s[i], 1 / (1 + std::exp(-v)));
      if (v < 87) rests.add(r[i], 1 / (1 + std::exp(v)));
      if (!fused && std::abs(v) > 4) continue;  // there the square's rounding shows; see math-inl.h
      cdf.add(c[i], std::erfc(-v / std::numbers::sqrt2) / 2);
      density.add(p[i], std::exp(-v * v / 2) / std::sqrt(2 * std::numbers::pi));
    }
    const char* name = hwy::TargetName(target);
    EXPECT_LT(exponential.error(), std::exp2(-23.4)) << name;
    EXPECT_LT(sigmoids.error(), std::exp2(-22)) << name;
    EXPECT_LT(rests.error(), std::exp2(-21.8)) << name;
    EXPECT_LT(cdf.error(), std::exp2(fused ? -21 : -20)) << name;
    EXPECT_LT(density.error(), std::exp2(fused ? -21 : -20)) << name;
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(Math, NanStaysNan) {
  for (const i64 target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    std::vector<float> x, e(64), s(64), r(64), c(64), p(64);
    for (u32 payload = 0; payload < 32; ++payload)
      for (const u32 sign : {0u, 0x80000000u}) x.push_back(std::bit_cast<float>(sign | 0x7fc00000u | payload));
    HWY_DYNAMIC_DISPATCH(apply_functions)(x.data(), e.data(), s.data(), r.data(), c.data(), p.data(), 64);
    for (size_t i = 0; i < 64; ++i)
      EXPECT_TRUE(std::isnan(e[i]) && std::isnan(s[i]) && std::isnan(r[i]) && std::isnan(c[i]) && std::isnan(p[i]))
          << hwy::TargetName(target) << " payload " << i;
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace
}  // namespace sparsam::cpu
#endif
