#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/gemm_nt.hpp"
#include "sida/core/dtype.hpp"

namespace sida::kernels {
namespace {

constexpr int kTile = 2;  // rows, and columns: four sums of eight lanes are what sixteen SSE registers hold

/// Four lanes: a register of every processor that we know, and of GCC's and Clang's making on the others.
using Four = float __attribute__((vector_size(16)));

Four load(float const* from) {
  Four four;
  std::memcpy(&four, from, sizeof(four));
  return four;
}

struct Lanes {
  Four low = {};   // lanes 0 to 3
  Four high = {};  // lanes 4 to 7
};

void add_product(float const* x, float const* w, Lanes& sum) {
  sum.low += load(x) * load(w);
  sum.high += load(x + 4) * load(w + 4);
}

/// Sums of the products of `Rows` rows of x and `Cols` rows of w over one segment. x, w: [k] each.
template <int Rows, int Cols>
void multiply(float const* const (&x)[Rows], float const* const (&w)[Cols], std::int64_t k, Lanes (&out)[Rows][Cols]) {
  Lanes sums[Rows][Cols];  // a local of its own: what `out` refers to might not stay in registers
  std::int64_t const whole = k / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (int r = 0; r < Rows; ++r) {
      for (int c = 0; c < Cols; ++c) add_product(x[r] + i, w[c] + i, sums[r][c]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Cols; ++c) {
      if (whole < k) {
        float x_tail[kLanes] = {}, w_tail[kLanes] = {};  // zeros add nothing
        std::copy(x[r] + whole, x[r] + k, x_tail);
        std::copy(w[c] + whole, w[c] + k, w_tail);
        add_product(x_tail, w_tail, sums[r][c]);
      }
      out[r][c] = sums[r][c];
    }
  }
}

float total(Lanes const& lanes) {
  Four const s = lanes.low + lanes.high;
  return (s[0] + s[1]) + (s[2] + s[3]);
}

template <int Rows, int Cols>
void tile(GemmNt const& a, std::int64_t i, std::int64_t j, std::int64_t begin, std::int64_t length,
          float const* const (&w)[Cols]) {
  float const* x[Rows];
  for (int r = 0; r < Rows; ++r) x[r] = static_cast<float const*>(a.x) + (i + r) * a.x_stride + begin;
  Lanes sums[Rows][Cols];
  multiply<Rows, Cols>(x, w, length, sums);
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Cols; ++c) {
      float& y = a.y[(i + r) * a.y_stride + j + c];
      y = begin == 0 && !a.adds ? total(sums[r][c]) : y + total(sums[r][c]);
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
