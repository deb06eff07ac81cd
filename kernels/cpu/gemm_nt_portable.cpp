#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gemm_nt.hpp"
#include "sida/core/dtype.hpp"

namespace sida::kernels {
namespace {

constexpr int kTile = 2;  // rows, and columns: four sums of eight lanes are what sixteen SSE registers hold

struct Lanes {
  float lane[kLanes];
};

/// Sums of the products of `Rows` rows of x and `Cols` rows of w over one segment. x, w: [k] each.
template <int Rows, int Cols>
void multiply(float const* const (&x)[Rows], float const* const (&w)[Cols], std::int64_t k, Lanes (&sums)[Rows][Cols]) {
  for (std::int64_t i = 0; i + kLanes <= k; i += kLanes) {
    for (int r = 0; r < Rows; ++r) {
      for (int c = 0; c < Cols; ++c) {
        for (int l = 0; l < kLanes; ++l) sums[r][c].lane[l] += x[r][i + l] * w[c][i + l];
      }
    }
  }
  std::int64_t const whole = k / kLanes * kLanes;
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Cols; ++c) {
      for (std::int64_t i = whole; i < k; ++i) sums[r][c].lane[i - whole] += x[r][i] * w[c][i];
    }
  }
}

float total(Lanes const& lanes) {
  float s[4];
  for (int l = 0; l < 4; ++l) s[l] = lanes.lane[l] + lanes.lane[l + 4];
  return (s[0] + s[1]) + (s[2] + s[3]);
}

template <int Rows, int Cols>
void tile(GemmNt const& a, std::int64_t i, std::int64_t j, std::int64_t begin, std::int64_t length,
          float const* const (&w)[Cols]) {
  float const* x[Rows];
  for (int r = 0; r < Rows; ++r) x[r] = a.x + (i + r) * a.x_stride + begin;
  Lanes sums[Rows][Cols] = {};
  multiply<Rows, Cols>(x, w, length, sums);
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Cols; ++c) {
      float& y = a.y[(i + r) * a.y_stride + j + c];
      y = begin == 0 ? total(sums[r][c]) : y + total(sums[r][c]);
    }
  }
}

template <class T>
void widen(T const* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}

/// Columns [j, j + Cols) through all of k; weights of 16 bits are widened once for all rows.
template <class T, int Cols>
void columns(GemmNt const& a, std::int64_t j) {
  float wide[Cols][kSegment];
  std::int64_t begin = 0;
  do {
    std::int64_t const length = std::min<std::int64_t>(a.k - begin, kSegment);
    float const* w[Cols];
    for (int c = 0; c < Cols; ++c) {
      T const* row = static_cast<T const*>(a.w) + (j + c) * a.w_stride + begin;
      if constexpr (sizeof(T) == sizeof(float)) {
        w[c] = row;
      } else {
        widen(row, length, wide[c]);
        w[c] = wide[c];
      }
    }
    std::int64_t i = 0;
    for (; i + kTile <= a.m; i += kTile) tile<kTile, Cols>(a, i, j, begin, length, w);
    for (; i < a.m; ++i) tile<1, Cols>(a, i, j, begin, length, w);
    begin += length;
  } while (begin < a.k);
}

template <class T>
void run(GemmNt const& a) {
  std::int64_t j = 0;
  for (; j + kTile <= a.n; j += kTile) columns<T, kTile>(a, j);
  for (; j < a.n; ++j) columns<T, 1>(a, j);
}

}  // namespace

void gemm_nt_portable(GemmNt const& args) noexcept {
  switch (args.w_type) {
    case kWeightF32: return run<float>(args);
    case kWeightF16: return run<fp16>(args);
    case kWeightBf16: return run<bf16>(args);
  }
}

}  // namespace sida::kernels
