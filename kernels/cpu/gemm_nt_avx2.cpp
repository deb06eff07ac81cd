// Compiled with -mavx2 -mfma -mf16c: keep it free of anything that another file could instantiate too.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/gemm_nt.hpp"

namespace sida::kernels {
namespace {

/// Eight consecutive weights, widened.
struct LoadF32 {
  using Element = float;
  static __m256 load(float const* w) { return _mm256_loadu_ps(w); }
};
struct LoadF16 {
  using Element = uint16_t;
  static __m256 load(uint16_t const* w) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(w)));
  }
};
struct LoadBf16 {
  using Element = uint16_t;
  static __m256 load(uint16_t const* w) {
    __m256i const wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(w)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
};

/// The first `count` (< 8) elements; zeros after them, which add nothing to a sum.
template <class Load>
__m256 load_tail(typename Load::Element const* from, int64_t count) {
  typename Load::Element padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return Load::load(padded);
}

__m128 fold(__m256 lanes) { return _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1)); }

/// The sums of four accumulators, in order.
__m128 sum4(__m256 a, __m256 b, __m256 c, __m256 d) {
  return _mm_hadd_ps(_mm_hadd_ps(fold(a), fold(b)), _mm_hadd_ps(fold(c), fold(d)));
}

float sum1(__m256 a) {
  __m128 const pairs = _mm_hadd_ps(fold(a), fold(a));
  return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
}

/// One segment of a product: rows of x and W start at the segment.
template <class Load>
struct Block {
  float const* x;
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

template <int Rows, int Cols>
void store(__m256 const (&sums)[Rows][Cols], float* y, int64_t y_stride, bool first) {
  for (int r = 0; r < Rows; ++r, y += y_stride) {
    if constexpr (Cols % 4 == 0) {
      for (int c = 0; c < Cols; c += 4) {
        __m128 total = sum4(sums[r][c], sums[r][c + 1], sums[r][c + 2], sums[r][c + 3]);
        if (!first) total = _mm_add_ps(_mm_loadu_ps(y + c), total);
        _mm_storeu_ps(y + c, total);
      }
    } else {
      for (int c = 0; c < Cols; ++c) y[c] = first ? sum1(sums[r][c]) : y[c] + sum1(sums[r][c]);
    }
  }
}

/// Rows x Cols outputs with one accumulator each: whatever the tile, an output sees the same operations.
/// A function of its own, so that its loop has all registers.
template <class Load, int Rows, int Cols>
__attribute__((noinline)) void tile(Block<Load> const& b) {
  constexpr int kFetched = Cols == 8 ? 8 : 2;  // rows of W
  __m256 sums[Rows][Cols];
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Cols; ++c) sums[r][c] = _mm256_setzero_ps();
  }
  float const* x = b.x;
  typename Load::Element const* w = b.w;
  typename Load::Element const* ahead = b.ahead;
  int64_t const x_stride = b.x_stride, w_stride = b.w_stride, ahead_stride = b.ahead_stride;
  int64_t const whole = b.k / kLanes * kLanes;
  for (float const* const end = x + whole; x != end; x += kLanes, w += kLanes, ahead += kLanes) {
    // Hides that the pointers advance evenly: else one register goes to each row, and there are too few.
    asm("" : "+r"(x), "+r"(w), "+r"(ahead));
    for (int f = 0; f < kFetched; ++f) _mm_prefetch(ahead + f * ahead_stride, _MM_HINT_T0);
    __m256 xs[Rows];
    for (int r = 0; r < Rows; ++r) xs[r] = _mm256_loadu_ps(x + r * x_stride);
    for (int c = 0; c < Cols; ++c) {
      __m256 const ws = Load::load(w + c * w_stride);
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm256_fmadd_ps(xs[r], ws, sums[r][c]);
    }
  }
  if (whole < b.k) {
    for (int r = 0; r < Rows; ++r) {
      __m256 const xs = load_tail<LoadF32>(x + r * x_stride, b.k - whole);
      for (int c = 0; c < Cols; ++c) {
        __m256 const ws = load_tail<Load>(w + c * w_stride, b.k - whole);
        sums[r][c] = _mm256_fmadd_ps(xs, ws, sums[r][c]);
      }
    }
  }
  store<Rows, Cols>(sums, b.y, b.y_stride, b.first);
}

/// All m rows of Cols columns. The first tiles fetch the Cols rows of W at `next`.
template <class Load, int Cols>
void columns(Block<Load> b, int64_t m, typename Load::Element const* next) {
  int64_t const per_tile = m >= 12 ? 1 : 2;
  int64_t fetched = 0;
  auto const step = [&](auto multiply, int64_t rows) {
    bool const fetch = fetched < Cols;
    b.ahead = fetch ? next + fetched * b.w_stride : b.w;
    b.ahead_stride = per_tile == 1 ? 0 : b.w_stride;
    fetched += per_tile;
    multiply(b);
    b.x += rows * b.x_stride;
    b.y += rows * b.y_stride;
    return rows;
  };
  while (m >= 3 && m != 4) m -= step(tile<Load, 3, Cols>, 3);
  while (m >= 2) m -= step(tile<Load, 2, Cols>, 2);  // 4 = 2 + 2: one row alone has too few chains
  if (m == 1) step(tile<Load, 1, Cols>, 1);
}

/// All m rows of n columns of one segment. `next`: weights that are read after these.
template <class Load>
void panel(Block<Load> b, int64_t m, int64_t n, typename Load::Element const* next) {
  b.ahead_stride = b.w_stride;
  if (m == 1) {  // 8 columns at once for enough independent chains
    for (; n >= 8; n -= 8, b.w += 8 * b.w_stride, b.y += 8) {
      b.ahead = n >= 16 ? b.w + 8 * b.w_stride : next;
      tile<Load, 1, 8>(b);
    }
  }
  for (; n >= 4; n -= 4, b.w += 4 * b.w_stride, b.y += 4) {
    columns<Load, 4>(b, m, n >= 8 ? b.w + 4 * b.w_stride : next);
  }
  for (; n > 0; --n, b.w += b.w_stride, ++b.y) columns<Load, 1>(b, m, b.w);
}

/// Rows of x in blocks whose segment stays in L2, columns in panels, and both through one segment of k at a time.
template <class Load>
void run(GemmNt const& a) {
  constexpr int64_t kRows = 60;
  constexpr int64_t kFew = 16;
  auto const* const w = static_cast<typename Load::Element const*>(a.w);
  // Few rows: their whole length stays in L1 or L2, and W is read in the order of its memory.
  int64_t const panel_columns = a.m == 1 ? 8 : a.m <= kFew ? 4 : 64;
  for (int64_t i = 0; i < a.m; i += kRows) {
    int64_t const rows = a.m - i < kRows ? a.m - i : kRows;
    for (int64_t j = 0; j < a.n; j += panel_columns) {
      int64_t const cols = a.n - j < panel_columns ? a.n - j : panel_columns;
      auto const* const panel_w = w + j * a.w_stride;
      auto const* const next_panel = a.n - j >= 2 * panel_columns ? panel_w + panel_columns * a.w_stride : panel_w;
      int64_t c = 0;
      do {
        int64_t const length = a.k - c < kSegment ? a.k - c : kSegment;
        bool const last = a.k - c - length < kSegment;
        panel<Load>({a.x + i * a.x_stride + c, a.x_stride, panel_w + c, a.w_stride, a.y + i * a.y_stride + j,
                     a.y_stride, length, c == 0, nullptr, 0},
                    rows, cols, last ? next_panel : panel_w + c + length);
        c += length;
      } while (c < a.k);
    }
  }
}

}  // namespace

void gemm_nt_avx2(GemmNt const& args) noexcept {
  switch (args.w_type) {
    case kWeightF32: return run<LoadF32>(args);
    case kWeightF16: return run<LoadF16>(args);
    case kWeightBf16: return run<LoadBf16>(args);
  }
}

}  // namespace sida::kernels
