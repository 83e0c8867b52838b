// Quantised blocks against llama.cpp: tests/data/golden/quant is written by tools/write_quant_goldens.py.
#include "tensor/blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <vector>

#include "base/random.h"
#include "tensor/matrix.h"

namespace sparsam {
namespace {

constexpr std::array quantised{DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,  DType::q2_k,
                               DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_nl};

std::string golden(const std::string& name) {
  std::ifstream file(SPARSAM_TEST_DATA "/golden/quant/" + name, std::ios::binary);
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}
std::vector<float> golden_floats(const std::string& name) {
  const std::string bytes = golden(name);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

TEST(Blocks, TakeTheseBytes) {
  EXPECT_EQ(bytes_for(DType::q8_0, 64), 68);
  EXPECT_EQ(bytes_for(DType::q4_k, 512), 288);
  EXPECT_EQ(bytes_for(DType::bf16, 7), 14);
  for (const DType dtype : quantised) {
    EXPECT_TRUE(is_quantised(dtype));
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
  }
  EXPECT_FALSE(is_quantised(DType::f32));
}
TEST(BlocksDeathTest, PartsOfBlocksHaveNoBytes) {
  EXPECT_DEATH(bytes_for(DType::q4_k, 128), "128 elements of q4_k: blocks have 256");
  EXPECT_DEATH(size_of(DType::q8_0), "q8_0");
}

// Random bytes among them: every bit of every field counts, and scales are any f16.
TEST(Blocks, HaveTheValuesOfLlamaCpp) {
  for (const DType dtype : quantised) {
    const std::string name(name_of(dtype)), blocks = golden(name + ".blocks");
    const std::vector<float> expected = golden_floats(name + ".values");
    ASSERT_EQ(static_cast<i64>(blocks.size()), bytes_for(dtype, static_cast<i64>(expected.size())));
    const auto* bytes = reinterpret_cast<const std::byte*>(blocks.data());
    std::vector<float> values(expected.size());
    dequantize_row(dtype, bytes, values);
    for (size_t i = 0; i < values.size(); ++i) {
      const float element = block_element(dtype, bytes, static_cast<i64>(i));
      if (std::isnan(expected[i])) {
        EXPECT_TRUE(std::isnan(values[i]) && std::isnan(element)) << name << " " << i;
        continue;
      }
      ASSERT_EQ(std::bit_cast<u32>(values[i]), std::bit_cast<u32>(expected[i])) << name << " " << i;
      ASSERT_EQ(std::bit_cast<u32>(element), std::bit_cast<u32>(expected[i])) << name << " " << i;
    }
  }
}

TEST(Blocks, ScalesPackBothWays) {
  Random random(1);
  for (int i = 0; i < 100; ++i) {
    GroupScales scales;
    for (u8& s : scales.s) s = static_cast<u8>(random.below(64));
    for (u8& m : scales.m) m = static_cast<u8>(random.below(64));
    const GroupScales back = group_scales(packed_scales(scales));
    EXPECT_EQ(back.s, scales.s);
    EXPECT_EQ(back.m, scales.m);
    std::array<i8, 16> signed_scales;
    for (i8& s : signed_scales) s = static_cast<i8>(static_cast<int>(random.below(64)) - 32);
    EXPECT_EQ(q3_scales(packed_q3_scales(signed_scales)), signed_scales);
  }
}

struct Errors {
  std::vector<double> plain, weighted;  // of each row
};
Errors llama_errors(const std::string& type, size_t rows) {
  std::istringstream lines(golden("errors.txt"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name != type) continue;
    const std::vector<double> errors{std::istream_iterator<double>(words), {}};
    EXPECT_EQ(errors.size(), 2 * rows);
    return {{errors.begin(), errors.begin() + static_cast<i64>(rows)},
            {errors.begin() + static_cast<i64>(rows), errors.end()}};
  }
  ADD_FAILURE() << "no errors of " << type;
  return {};
}

// sum_e w_e (x_e - y_e)^2; without w of 1
double error_of(DType dtype, std::span<const float> x, std::span<const float> w) {
  std::vector<std::byte> row(static_cast<size_t>(bytes_for(dtype, static_cast<i64>(x.size()))));
  std::vector<float> y(x.size());
  quantize_row(dtype, x, w, row.data());
  dequantize_row(dtype, row.data(), y);
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) error += (w.empty() ? 1.0 : double{w[i]}) * std::pow(double{x[i]} - y[i], 2);
  return error;
}

// The search for scales finds a smaller squared error than llama.cpp's: over the rows as a geometric mean, and in no
// row a much larger one. Errors below a millionth of the row's squares are equal.
TEST(Quantise, IsMoreExactThanLlamaCpp) {
  const std::vector<float> importance = golden_floats("importance.f32"), input = golden_floats("input.f32");
  const size_t cols = importance.size(), rows = input.size() / cols;
  for (const DType dtype : quantised) {
    const std::string name(name_of(dtype));
    const Errors llama = llama_errors(name, rows);
    for (const bool weighted : {false, true}) {
      const std::span<const float> w = weighted ? importance : std::span<const float>();
      double logarithms = 0;
      for (size_t r = 0; r < rows; ++r) {
        const auto x = std::span(input).subspan(r * cols, cols);
        double squares = 0;
        for (size_t i = 0; i < cols; ++i) squares += (weighted ? w[i] : 1.0) * x[i] * x[i];
        const double theirs = (weighted ? llama.weighted : llama.plain)[r] / squares + 1e-6;
        const double ratio = (error_of(dtype, x, w) / squares + 1e-6) / theirs;
        EXPECT_LE(ratio, 1.35) << name << ", row " << r << (weighted ? ", weighted" : "");
        logarithms += std::log(ratio);
      }
      const double mean = std::exp(logarithms / static_cast<double>(rows));
      EXPECT_LE(mean, 0.97) << name << (weighted ? ", weighted" : "");
      RecordProperty(name + (weighted ? "_weighted" : "_plain"), fmt::format("{:.4f}", mean));
    }
  }
}

// What the blocks can hold exactly comes back exactly.
TEST(Quantise, KeepsZerosAndLevels) {
  for (const DType dtype : quantised) {
    std::vector<float> x(256, 0.0f);
    EXPECT_EQ(error_of(dtype, x, {}), 0) << name_of(dtype);
    for (size_t i = 0; i < x.size(); ++i) x[i] = 0.5f * static_cast<float>(static_cast<int>(i % 4) - 3);
    if (dtype != DType::iq4_nl) {
      EXPECT_LE(error_of(dtype, x, {}), 1e-4) << name_of(dtype);  // scales are rounded to f16
    }
  }
}

// Weights that f16 scales cannot reach, and importance of zero, give numbers still.
TEST(Quantise, StaysFinite) {
  Random random(2);
  for (const DType dtype : quantised)
    for (const double size : {1e-30, 1e-9, 1e6, 1e30}) {
      std::vector<float> x(512);
      for (float& value : x) value = static_cast<float>(size * random.normal());
      const std::vector<float> nothing(x.size(), 0.0f);
      EXPECT_TRUE(std::isfinite(error_of(dtype, x, nothing))) << name_of(dtype) << " " << size;
      std::vector<std::byte> row(static_cast<size_t>(bytes_for(dtype, 512)));
      quantize_row(dtype, x, {}, row.data());
      for (i64 i = 0; i < 512; ++i) ASSERT_TRUE(std::isfinite(block_element(dtype, row.data(), i)));
    }
}

TEST(Matrix, OfBlocksIsSlicedByRows) {
  Random random(3);
  std::vector<float> x(5 * 512), y(512);
  for (float& value : x) value = static_cast<float>(random.normal());
  for (const DType dtype : quantised) {
    std::vector<std::byte> bytes(static_cast<size_t>(bytes_for(dtype, 5 * 512)));
    const Matrix m{dtype, 5, 512, bytes};
    for (i64 r = 0; r < 5; ++r)
      quantize_row(dtype, std::span(x).subspan(static_cast<size_t>(r) * 512, 512), {},
                   bytes.data() + r * m.row_bytes());
    const Matrix part = m.slice(2, 3);
    EXPECT_EQ(static_cast<i64>(part.bytes.size()), 3 * m.row_bytes());
    dequantize_row(dtype, part.row(1), y);
    for (i64 c = 0; c < 512; ++c) {
      ASSERT_EQ(m.at(3, c), y[static_cast<size_t>(c)]);
      ASSERT_EQ(part.at<double>(1, c), y[static_cast<size_t>(c)]);
    }
  }
}

}  // namespace
}  // namespace sparsam
