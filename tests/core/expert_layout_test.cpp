#include "sida/core/expert_layout.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace {

using sida::Dtype;
using sida::ExpertLayout;
using sida::ExpertShape;
using sida::FfnKind;

std::vector<ExpertShape> shapes() {
  std::vector<ExpertShape> all;
  for (FfnKind kind : {FfnKind::relu, FfnKind::gelu, FfnKind::swiglu}) {
    for (Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
      for (std::int64_t d_model : {1, 3, 64, 768}) {
        for (std::int64_t d_ff : {1, 5, 128, 3072}) all.push_back({kind, dtype, d_model, d_ff});
      }
    }
  }
  return all;
}

TEST(ExpertLayout, MatricesAreAlignedAndDoNotOverlap) {
  for (ExpertShape const& shape : shapes()) {
    auto const layout = ExpertLayout::of(shape);
    ASSERT_TRUE(layout) << layout.message();
    std::vector<std::size_t> starts;
    if (shape.kind == FfnKind::swiglu) starts.push_back(layout->gate);
    starts.push_back(layout->in);
    starts.push_back(layout->out);
    EXPECT_EQ(starts.front(), 0U);
    for (std::size_t i = 0; i < starts.size(); ++i) {
      EXPECT_EQ(starts[i] % 64, 0U);
      std::size_t const next = i + 1 < starts.size() ? starts[i + 1] : layout->size_bytes;
      EXPECT_LE(starts[i] + layout->matrix_bytes(), next);
    }
    EXPECT_EQ(layout->out + layout->matrix_bytes(), layout->size_bytes);
    EXPECT_EQ(layout->matrix_bytes(), static_cast<std::size_t>(shape.d_model * shape.d_ff) * size_bytes(shape.dtype));
    EXPECT_EQ(layout->shape, shape);
  }
}

TEST(ExpertLayout, RejectsImpossibleDimensions) {
  std::int64_t const most = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::min(), most, most / 2,
                           (std::int64_t{1} << 24) + 1}) {
    for (auto const& [d_model, d_ff] : {std::pair{bad, std::int64_t{8}}, {std::int64_t{8}, bad}, {bad, bad}}) {
      auto const layout = ExpertLayout::of({FfnKind::swiglu, Dtype::f32, d_model, d_ff});
      ASSERT_FALSE(layout) << d_model << " x " << d_ff;
      EXPECT_EQ(layout.code(), sida::Errc::invalid_argument);
      EXPECT_NE(layout.message().find(std::to_string(bad)), std::string::npos) << layout.message();
    }
  }
}

TEST(ExpertLayout, HoldsTheLargestDimensions) {
  std::int64_t const largest = std::int64_t{1} << 24;
  auto const layout = ExpertLayout::of({FfnKind::swiglu, Dtype::f32, largest, largest});
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->size_bytes, std::size_t{3} << 50);
}

TEST(SlotBytes, AreWholePages) {
  EXPECT_EQ(sida::slot_bytes_for(0), 0U);
  EXPECT_EQ(sida::slot_bytes_for(1), 4096U);
  EXPECT_EQ(sida::slot_bytes_for(4096), 4096U);
  EXPECT_EQ(sida::slot_bytes_for(4097), 8192U);
  std::size_t const most = std::numeric_limits<std::size_t>::max() - 4095;
  EXPECT_EQ(sida::slot_bytes_for(most), most);
}

TEST(FfnKind, HasANameEach) {
  EXPECT_EQ(to_string(FfnKind::relu), "relu");
  EXPECT_EQ(to_string(FfnKind::gelu), "gelu");
  EXPECT_EQ(to_string(FfnKind::swiglu), "swiglu");
}

}  // namespace
