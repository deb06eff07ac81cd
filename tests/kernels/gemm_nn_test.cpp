#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sida/kernels/cpu.hpp"

namespace sida {
namespace {

constexpr float kUntouched = -77.0F;

/// One product with rows further apart than they are long, and NaN between them.
struct Problem {
  std::int64_t m, n, k;
  std::int64_t x_stride = k + 3, b_stride = n + 5, y_stride = n + 2;
  std::vector<float> x, b;

  Problem(std::int64_t m_, std::int64_t n_, std::int64_t k_, std::mt19937& random) : m(m_), n(n_), k(k_) {
    x = numbers(m, k, x_stride, random);
    b = numbers(k, n, b_stride, random);
  }

  /// In blocks of `rows` by `cols`.
  std::vector<float> run(CpuIsa isa, std::int64_t rows, std::int64_t cols) const {
    std::vector<float> y(static_cast<std::size_t>(m * y_stride), kUntouched);
    for (std::int64_t i = 0; i < m; i += rows) {
      for (std::int64_t j = 0; j < n; j += cols) {
        gemm_nn(isa, {.x = x.data() + i * x_stride,
                      .x_stride = x_stride,
                      .b = b.data() + j,
                      .b_stride = b_stride,
                      .y = y.data() + i * y_stride + j,
                      .y_stride = y_stride,
                      .m = std::min(rows, m - i),
                      .n = std::min(cols, n - j),
                      .k = k});
      }
    }
    return y;
  }

  void expect_near(std::vector<float> const& y) const {
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < y_stride; ++j) {
        float const value = y[static_cast<std::size_t>(i * y_stride + j)];
        if (j >= n) {
          ASSERT_EQ(value, kUntouched) << "wrote past row " << i;
          continue;
        }
        double sum = 0, magnitude = 0;
        for (std::int64_t c = 0; c < k; ++c) {
          double const product = double{x[static_cast<std::size_t>(i * x_stride + c)]} *
                                 double{b[static_cast<std::size_t>(c * b_stride + j)]};
          sum += product;
          magnitude += std::abs(product);
        }
        // Rounding of any order of summation: k eps times the sum of magnitudes (Higham, 3.5).
        double const bound = static_cast<double>(k) * std::numeric_limits<float>::epsilon() * magnitude;
        ASSERT_NEAR(value, sum, bound) << "y[" << i << ", " << j << "] of m " << m << ", n " << n << ", k " << k;
      }
    }
  }

 private:
  static std::vector<float> numbers(std::int64_t rows, std::int64_t cols, std::int64_t stride, std::mt19937& random) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(rows * stride), std::numeric_limits<float>::quiet_NaN());
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) values[static_cast<std::size_t>(r * stride + c)] = normal(random);
    }
    return values;
  }
};

class GemmNn : public testing::TestWithParam<CpuIsa> {
 protected:
  std::mt19937 random_{20261126};
};

INSTANTIATE_TEST_SUITE_P(Kernels, GemmNn, testing::ValuesIn(runnable_cpu_isas().begin(), runnable_cpu_isas().end()),
                         [](auto const& isa) { return std::string(to_string(isa.param)); });

TEST_P(GemmNn, AgreesWithDoublePrecision) {
  for (std::int64_t m = 1; m <= 17; m += 1 + m / 8) {
    for (std::int64_t n = 1; n <= 150; n += 1 + n / 3) {
      std::int64_t const k = 1 + static_cast<std::int64_t>(random_() % 90);
      Problem const problem(m, n, k, random_);
      problem.expect_near(problem.run(GetParam(), m, n));
    }
  }
}

TEST_P(GemmNn, GivesTheSameBytesHoweverRowsAndColumnsAreSplit) {
  for (std::int64_t const k : {1, 5, 64, 300}) {
    Problem const problem(19, 101, k, random_);
    std::vector<float> const whole = problem.run(GetParam(), 19, 101);
    for (std::int64_t const rows : {1, 2, 3, 4, 5, 6, 7, 19}) {
      for (std::int64_t const cols : {1, 7, 8, 16, 31, 64, 101}) {
        ASSERT_EQ(problem.run(GetParam(), rows, cols), whole) << "blocks of " << rows << " x " << cols << ", k " << k;
      }
    }
  }
}

TEST_P(GemmNn, WritesZerosWhenThereIsNothingToSum) {
  std::vector<float> y(6, kUntouched);
  gemm_nn(GetParam(), {.y = y.data(), .y_stride = 3, .m = 2, .n = 3, .k = 0});
  EXPECT_EQ(y, std::vector<float>(6, 0.0F));
}

}  // namespace
}  // namespace sida
