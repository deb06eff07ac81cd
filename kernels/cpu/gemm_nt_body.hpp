// The product for vectors of any width: included by files that are each compiled for one instruction set. All has
// internal linkage, since each of them makes its own of it.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/gemm_nt.hpp"

namespace sida::kernels {
namespace {

// `V` is a width: V::Floats, a register of V::kLanes floats; `zero`, `multiply_add`; `load`, `load_f16` and
// `load_bf16`, which widen; `fold`, the lanes added up to four in V's one order; kTile, rows of x by rows of W in a
// tile.
struct TileShape {
  int rows, cols;
};

/// How floats are multiplied with weights of one type: kStep elements of each at once.
template <class V>
struct TakesFloats {
  using Vector = V;
  using Input = float;
  static constexpr int64_t kStep = V::kLanes;
  static constexpr TileShape kTile = V::kTile;
  static typename V::Floats load_input(float const* x) { return V::load(x); }
  static typename V::Floats multiply_add(typename V::Floats x, typename V::Floats w, typename V::Floats sum) {
    return V::multiply_add(x, w, sum);
  }
};
template <class V>
struct LoadF32 : TakesFloats<V> {
  using Element = float;
  static typename V::Floats load(float const* w) { return V::load(w); }
};
template <class V>
struct LoadF16 : TakesFloats<V> {
  using Element = uint16_t;
  static typename V::Floats load(uint16_t const* w) { return V::load_f16(w); }
};
template <class V>
struct LoadBf16 : TakesFloats<V> {
  using Element = uint16_t;
  static typename V::Floats load(uint16_t const* w) { return V::load_bf16(w); }
};

/// The sums of four accumulators, in order.
template <class V>
__m128 sum4(typename V::Floats const& a, typename V::Floats const& b, typename V::Floats const& c,
            typename V::Floats const& d) {
  return _mm_hadd_ps(_mm_hadd_ps(V::fold(a), V::fold(b)), _mm_hadd_ps(V::fold(c), V::fold(d)));
}

template <class V>
float sum1(typename V::Floats const& sum) {
  __m128 const pairs = _mm_hadd_ps(V::fold(sum), V::fold(sum));
  return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
}

/// The first `count` (< kStep) elements; zeros after them, which add nothing to a sum.
template <int64_t kStep, class Element>
struct Padded {
  Element elements[kStep] = {};
  Padded(Element const* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) elements[i] = from[i];
  }
};

/// One segment of a product: rows of x and W start at the segment.
template <class Load>
struct Block {
  typename Load::Input const* x;
  int64_t x_stride;
  typename Load::Element const* w;
  int64_t w_stride;
  float* y;
  int64_t y_stride;
  int64_t k;
  bool first;  // of its sum: y is written, not added to
  /// Weights that will be read soon, at the stride of w: fetched alongside, so that memory works while we multiply.
  typename Load::Element const* ahead;
  int64_t ahead_stride;
};

template <class V, int Rows, int Cols>
void store(typename V::Floats const (&sums)[Rows][Cols], float* y, int64_t y_stride, bool first) {
  for (int r = 0; r < Rows; ++r, y += y_stride) {
    if constexpr (Cols % 4 == 0) {
      for (int c = 0; c < Cols; c += 4) {
        __m128 total = sum4<V>(sums[r][c], sums[r][c + 1], sums[r][c + 2], sums[r][c + 3]);
        if (!first) total = _mm_add_ps(_mm_loadu_ps(y + c), total);
        _mm_storeu_ps(y + c, total);
      }
    } else {
      for (int c = 0; c < Cols; ++c) y[c] = first ? sum1<V>(sums[r][c]) : y[c] + sum1<V>(sums[r][c]);
    }
  }
}

/// Rows x Cols outputs with one accumulator each: whatever the tile, an output sees the same operations. Fetches
/// `Fetched` rows of W ahead. A function of its own, so that its loop has all registers.
template <class Load, int Rows, int Cols, int Fetched>
__attribute__((noinline)) void tile(Block<Load> const& b) {
  using V = typename Load::Vector;
  typename V::Floats sums[Rows][Cols];
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Cols; ++c) sums[r][c] = V::zero();
  }
  constexpr int64_t kStep = Load::kStep;
  typename Load::Input const* x = b.x;
  typename Load::Element const* w = b.w;
  typename Load::Element const* ahead = b.ahead;
  int64_t const x_stride = b.x_stride, w_stride = b.w_stride, ahead_stride = b.ahead_stride;
  int64_t const whole = b.k / kStep * kStep;
  for (auto const* const end = x + whole; x != end; x += kStep, w += kStep, ahead += kStep) {
    // Hides that the pointers advance evenly: else one register goes to each row, and there are too few.
    asm("" : "+r"(x), "+r"(w), "+r"(ahead));
    // Among many rows what comes next would push this segment out of L1.
    constexpr auto kInto = Fetched == 1 ? _MM_HINT_T1 : _MM_HINT_T0;
    for (int f = 0; f < Fetched; ++f) _mm_prefetch(ahead + f * ahead_stride, kInto);
    decltype(Load::load_input(x)) xs[Rows];
    for (int r = 0; r < Rows; ++r) xs[r] = Load::load_input(x + r * x_stride);
    for (int c = 0; c < Cols; ++c) {
      auto const ws = Load::load(w + c * w_stride);
      for (int r = 0; r < Rows; ++r) sums[r][c] = Load::multiply_add(xs[r], ws, sums[r][c]);
    }
  }
  if (int64_t const rest = b.k - whole; rest > 0) {
    for (int r = 0; r < Rows; ++r) {
      auto const xs = Load::load_input(Padded<kStep, typename Load::Input>(x + r * x_stride, rest).elements);
      for (int c = 0; c < Cols; ++c) {
        auto const ws = Load::load(Padded<kStep, typename Load::Element>(w + c * w_stride, rest).elements);
        sums[r][c] = Load::multiply_add(xs, ws, sums[r][c]);
      }
    }
  }
  store<V, Rows, Cols>(sums, b.y, b.y_stride, b.first);
}

/// `tile` of so many rows, up to `Most`.
template <class Load, int Most, int Cols, int Fetched>
void tile_of(Block<Load> const& b, int64_t rows) {
  if constexpr (Most > 1) {
    if (rows < Most) return tile_of<Load, Most - 1, Cols, Fetched>(b, rows);
  }
  tile<Load, Most, Cols, Fetched>(b);
}

/// All m rows of Cols columns. Those of W at `next`, if any, are fetched: each tile does a part, of at least `Fetched`.
template <class Load, int Cols, int Fetched>
void columns(Block<Load> b, int64_t m, typename Load::Element const* next) {
  constexpr int64_t kMost = Load::kTile.rows;
  for (int64_t fetched = 0; m > 0; fetched += Fetched) {
    // One row alone has too few chains: the last that are one too many are shared.
    int64_t const rows = m >= kMost ? (m == kMost + 1 ? kMost / 2 + 1 : kMost) : m;
    if (next != nullptr && fetched < Cols) {
      b.ahead = next + fetched * b.w_stride;
      tile_of<Load, static_cast<int>(kMost), Cols, Fetched>(b, rows);
    } else {
      b.ahead = b.w;
      tile_of<Load, static_cast<int>(kMost), Cols, 0>(b, rows);
    }
    b.x += rows * b.x_stride;
    b.y += rows * b.y_stride;
    m -= rows;
  }
}

/// All m rows of n columns of one segment. `next`: weights that are read after these, or null.
template <class Load>
void panel(Block<Load> b, int64_t m, int64_t n, typename Load::Element const* next) {
  b.ahead_stride = b.w_stride;
  if (m == 1) {  // 8 columns at once for enough independent chains
    for (; n >= 8; n -= 8, b.w += 8 * b.w_stride, b.y += 8) {
      auto const* const after = n >= 16 ? b.w + 8 * b.w_stride : next;
      b.ahead = after != nullptr ? after : b.w;
      tile<Load, 1, 8, 8>(b);
    }
  }
  constexpr int kCols = Load::kTile.cols;
  int64_t const tiles = (m + Load::kTile.rows - 1) / Load::kTile.rows;
  for (; n >= kCols; n -= kCols, b.w += kCols * b.w_stride, b.y += kCols) {
    auto const* const after = n >= 2 * kCols ? b.w + kCols * b.w_stride : next;
    if (tiles >= kCols) {
      columns<Load, kCols, 1>(b, m, after);
    } else if (2 * tiles >= kCols) {
      columns<Load, kCols, 2>(b, m, after);
    } else {
      columns<Load, kCols, kCols>(b, m, after);
    }
  }
  for (; n > 0; --n, b.w += b.w_stride, ++b.y) columns<Load, 1, 1>(b, m, nullptr);
}

/// Columns in panels, one segment of k at a time, and rows of x in blocks whose segment stays in L2: W is read once.
template <class Load>
void run(GemmNt const& a) {
  constexpr int64_t kRows = 60;
  constexpr int64_t kFew = 16;
  auto const* const x = static_cast<typename Load::Input const*>(a.x);
  auto const* const w = static_cast<typename Load::Element const*>(a.w);
  // Few rows: their whole length stays in L1 or L2, and W is read in the order of its memory.
  int64_t const panel_columns = a.m == 1 ? 8 : a.m <= kFew ? Load::kTile.cols : 64;
  for (int64_t j = 0; j < a.n; j += panel_columns) {
    int64_t const cols = a.n - j < panel_columns ? a.n - j : panel_columns;
    auto const* const panel_w = w + j * a.w_stride;
    auto const* const next_panel = a.n - j >= 2 * panel_columns ? panel_w + panel_columns * a.w_stride : nullptr;
    int64_t c = 0;
    do {
      int64_t const length = a.k - c < kSegment ? a.k - c : kSegment;
      auto const* const next = c + 2 * kSegment <= a.k ? panel_w + c + kSegment : next_panel;
      for (int64_t i = 0; i < a.m; i += kRows) {
        int64_t const rows = a.m - i < kRows ? a.m - i : kRows;
        panel<Load>({x + i * a.x_stride + c, a.x_stride, panel_w + c, a.w_stride, a.y + i * a.y_stride + j, a.y_stride,
                     length, c == 0, nullptr, 0},
                    rows, cols, i == 0 ? next : nullptr);
      }
      c += length;
    } while (c < a.k);
  }
}

template <class V>
void gemm_nt_body(GemmNt const& args) noexcept {
  switch (args.w_type) {
    case kWeightF32: return run<LoadF32<V>>(args);
    case kWeightF16: return run<LoadF16<V>>(args);
    case kWeightBf16: return run<LoadBf16<V>>(args);
  }
}

}  // namespace
}  // namespace sida::kernels
