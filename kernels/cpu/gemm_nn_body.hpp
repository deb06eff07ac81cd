// The product for vectors of any width: included by files that are each compiled for one instruction set. All has
// internal linkage, since each of them makes its own of it.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/gemm_nn.hpp"
#include "kernels/cpu/unrolled.hpp"

namespace sida::kernels {
namespace {

// `V` is a width: V::Floats, a register of V::kLanes floats; `zero`, `broadcast`, `multiply_add`; `load` and `store`
// of the first `count` lanes; kRows, rows of x in a tile, and kVectors, registers of a row of B.

/// Rows x Vectors registers of outputs. The last register has `last` lanes.
template <class V, int Rows, int Vectors>
__attribute__((noinline)) void tile(GemmNn const& a, int64_t last) {
  typename V::Floats sums[Rows][Vectors];
  SIDA_UNROLLED for (int r = 0; r < Rows; ++r) {
    SIDA_UNROLLED for (int v = 0; v < Vectors; ++v) sums[r][v] = V::zero();
  }
  float const* b = a.b;
  for (int64_t c = 0; c < a.k; ++c, b += a.b_stride) {
    typename V::Floats bs[Vectors];
    SIDA_UNROLLED for (int v = 0; v < Vectors; ++v) bs[v] =
        V::load(b + v * V::kLanes, v + 1 < Vectors ? V::kLanes : last);
    SIDA_UNROLLED for (int r = 0; r < Rows; ++r) {
      typename V::Floats const x = V::broadcast(a.x[r * a.x_stride + c]);
      SIDA_UNROLLED for (int v = 0; v < Vectors; ++v) sums[r][v] = V::multiply_add(x, bs[v], sums[r][v]);
    }
  }
  SIDA_UNROLLED for (int r = 0; r < Rows; ++r) {
    SIDA_UNROLLED for (int v = 0; v < Vectors; ++v) {
      V::store(sums[r][v], a.y + r * a.y_stride + v * V::kLanes, v + 1 < Vectors ? V::kLanes : last);
    }
  }
}

/// `tile` of all rows of up to Vectors registers of columns.
template <class V, int Rows, int Vectors>
void columns(GemmNn a) {
  if constexpr (Vectors > 1) {
    if (a.n <= (Vectors - 1) * V::kLanes) return columns<V, Rows, Vectors - 1>(a);
  }
  int64_t const last = a.n - (Vectors - 1) * V::kLanes;
  for (; a.m >= Rows; a.m -= Rows, a.x += Rows * a.x_stride, a.y += Rows * a.y_stride) tile<V, Rows, Vectors>(a, last);
  for (; a.m >= 2; a.m -= 2, a.x += 2 * a.x_stride, a.y += 2 * a.y_stride) tile<V, 2, Vectors>(a, last);
  if (a.m > 0) tile<V, 1, Vectors>(a, last);
}

template <class V>
void gemm_nn_body(GemmNn const& args) noexcept {
  constexpr int64_t kColumns = V::kVectors * V::kLanes;
  for (int64_t j = 0; j < args.n; j += kColumns) {
    GemmNn part = args;
    part.b += j;
    part.y += j;
    part.n = args.n - j < kColumns ? args.n - j : kColumns;
    columns<V, V::kRows, V::kVectors>(part);
  }
}

}  // namespace
}  // namespace sida::kernels
