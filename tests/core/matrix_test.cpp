#include "sida/core/matrix.hpp"

#include <numeric>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

namespace {

using sida::Matrix;
using sida::Tier;

static_assert(std::is_convertible_v<Matrix<float>, Matrix<float const>>);
static_assert(!std::is_convertible_v<Matrix<float const>, Matrix<float>>);
static_assert(!std::is_convertible_v<Matrix<float, Tier::device>, Matrix<float, Tier::host>>);
static_assert(std::is_trivially_copyable_v<Matrix<float>>);

TEST(Matrix, StepsByItsStride) {
  std::vector<int> data(15);  // [3, 4] within rows of 5
  std::iota(data.begin(), data.end(), 0);
  Matrix<int> const matrix(data.data(), 3, 4, 5);
  EXPECT_EQ(matrix(0, 3), 3);
  EXPECT_EQ(matrix(2, 1), 11);
  EXPECT_EQ(matrix.row(1).size(), 4U);
  EXPECT_EQ(matrix.row(1).front(), 5);
}

TEST(Matrix, IsDenseWithoutAStride) {
  std::vector<int> data(6);
  EXPECT_EQ(Matrix<int>(data.data(), 2, 3).stride, 3);
}

TEST(Matrix, RowRangeIsAView) {
  std::vector<int> data(8);
  std::iota(data.begin(), data.end(), 0);
  Matrix<int> const part = Matrix<int>(data.data(), 4, 2).row_range(1, 2);
  EXPECT_EQ(part.rows, 2);
  EXPECT_EQ(part(1, 1), 5);
  part(0, 0) = 42;
  EXPECT_EQ(data[2], 42);
}

}  // namespace
