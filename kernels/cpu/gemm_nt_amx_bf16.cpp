// Compiled with -mamx-tile -mamx-bf16 and the flags of gemm_nt_avx512_bf16.cpp: keep it free of anything that another
// file could instantiate too.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/gemm_nt.hpp"

// A tile holds 16 rows of 64 bytes. W's rows stand in memory as a product's left operand wants them, 32 elements of 16
// rows; x is packed to be the right one, pairs of 16 rows of x side by side. So a product is y's transpose, and is
// turned around on its way to y.
namespace sida::kernels {
namespace {

constexpr int64_t kTileRows = 16;  // of W, and of x
constexpr int64_t kTileElements = 512;
constexpr int64_t kBlockRows = 2 * kTileRows;  // of W and of x: four tiles of sums

struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

/// GCC's intrinsics don't say that they read memory: what was written for them must not stay in registers.
inline void write_back(void const* what) { asm volatile("" ::"r"(what) : "memory"); }

void configure_tiles() {
  alignas(64) TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = kTileRows;
  }
  write_back(&config);
  _tile_loadconfig(&config);
}

__m512 low_pairs(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
__m512 high_pairs(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

/// rows[i][j] becomes rows[j][i].
inline __attribute__((always_inline)) void transpose(__m512 (&rows)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    rows[i] = low_pairs(t[i], t[i + 2]);
    rows[i + 1] = high_pairs(t[i], t[i + 2]);
    rows[i + 2] = low_pairs(t[i + 1], t[i + 3]);
    rows[i + 3] = high_pairs(t[i + 1], t[i + 3]);
  }
  for (int half = 0; half < 16; half += 8) {
    for (int i = half; i < half + 4; ++i) {
      t[i] = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0xdd);
    }
  }
  for (int i = 0; i < 8; ++i) {
    rows[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
  }
}

/// One tile of sums to y: rows of x by columns, which are rows of W.
void store_sums(float const (&sums)[16][16], float* y, int64_t y_stride, int64_t rows, int64_t cols) {
  __m512 turned[16];
  for (int i = 0; i < 16; ++i) turned[i] = _mm512_load_ps(sums[i]);
  transpose(turned);
  auto const mask = static_cast<__mmask16>(0xffffU >> (16 - cols));
  if (rows == kTileRows) {
    for (int i = 0; i < 16; ++i) _mm512_mask_storeu_ps(y + i * y_stride, mask, turned[i]);
  } else {
    for (int i = 0; i < 16; ++i) {
      if (i < rows) _mm512_mask_storeu_ps(y + i * y_stride, mask, turned[i]);
    }
  }
}

/// Up to 32 rows of W and of x.
struct Block {
  uint16_t const* w;
  int64_t w_stride;
  uint16_t const* x;  // the first of one or two panels
  int64_t panel;      // elements from one to the next
  float* y;
  int64_t y_stride;
  int64_t m, n, k;
  uint16_t const* ahead;  // 32 rows of weights that are read soon, or null
};

/// Rows of W that end before a tile does, by k or by their number: zeros take the place of what is missing.
struct EdgeTile {
  alignas(64) uint16_t elements[kTileRows][kPackedDepth] = {};

  EdgeTile(uint16_t const* w, int64_t w_stride, int64_t rows, int64_t depth) {
    auto const mask = static_cast<__mmask32>(0xffffffffU >> (32 - depth));
    for (int64_t r = 0; r < kTileRows && r < rows; ++r) {
      _mm512_store_si512(elements[r], _mm512_maskz_loadu_epi16(mask, w + r * w_stride));
    }
  }
};

/// One step of k for two tiles of W (or one) and two panels of x (or one).
template <int kW, int kX>
inline __attribute__((always_inline)) void step(uint16_t const* w0, uint16_t const* w1, int64_t w_bytes,
                                                uint16_t const* x, int64_t panel) {
  _tile_loadd(6, x, 64);
  _tile_loadd(4, w0, w_bytes);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kX > 1) {
    _tile_loadd(7, x + panel, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
  if constexpr (kW > 1) {
    _tile_loadd(5, w1, w_bytes);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kX > 1) _tile_dpbf16ps(3, 5, 7);
  }
}

template <int kW, int kX>
void multiply(Block const& b) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  bool const is_whole = b.n == kW * kTileRows;
  int64_t const whole = is_whole ? b.k / kPackedDepth * kPackedDepth : 0;
  uint16_t const* const second = kW > 1 ? b.w + kTileRows * b.w_stride : b.w;
  uint16_t const* x = b.x;
  for (int64_t c = 0; c < whole; c += kPackedDepth, x += kTileElements) {
    if (b.ahead != nullptr) {
      for (int64_t r = 0; r < kW * kTileRows; ++r) _mm_prefetch(b.ahead + r * b.w_stride + c, _MM_HINT_T1);
    }
    step<kW, kX>(b.w + c, second + c, b.w_stride * 2, x, b.panel);
  }
  for (int64_t c = whole; c < b.k; c += kPackedDepth, x += kTileElements) {
    int64_t const depth = b.k - c < kPackedDepth ? b.k - c : kPackedDepth;
    EdgeTile const w0(b.w + c, b.w_stride, b.n, depth);
    write_back(&w0);
    if constexpr (kW > 1) {
      EdgeTile const w1(second + c, b.w_stride, b.n - kTileRows, depth);
      write_back(&w1);
      step<kW, kX>(w0.elements[0], w1.elements[0], 64, x, b.panel);
    } else {
      step<kW, kX>(w0.elements[0], nullptr, 64, x, b.panel);
    }
  }
  alignas(64) float sums[4][16][16];
  _tile_stored(0, sums[0], 64);
  if constexpr (kX > 1) _tile_stored(1, sums[1], 64);
  if constexpr (kW > 1) _tile_stored(2, sums[2], 64);
  if constexpr (kW > 1 && kX > 1) _tile_stored(3, sums[3], 64);
  for (int64_t w = 0; w < kW; ++w) {
    int64_t const cols = b.n - w * kTileRows < kTileRows ? b.n - w * kTileRows : kTileRows;
    for (int64_t p = 0; p < kX; ++p) {
      int64_t const rows = b.m - p * kTileRows < kTileRows ? b.m - p * kTileRows : kTileRows;
      store_sums(sums[2 * w + p], b.y + p * kTileRows * b.y_stride + w * kTileRows, b.y_stride, rows, cols);
    }
  }
}

void multiply(Block const& b) {
  bool const two_w = b.n > kTileRows, two_x = b.m > kTileRows;
  if (two_w) return two_x ? multiply<2, 2>(b) : multiply<2, 1>(b);
  return two_x ? multiply<1, 2>(b) : multiply<1, 1>(b);
}

/// `rows` (1 to 16) rows of a panel, `count` (1 to 32) elements of each; zeros for all others.
void pack_tile(float const* x, int64_t x_stride, int64_t rows, int64_t count, uint16_t* to) {
  auto const mask = static_cast<__mmask32>(0xffffffffU >> (32 - count));
  __m512 pairs[16];
  for (int r = 0; r < 16; ++r) {
    pairs[r] = _mm512_setzero_ps();
    if (r >= rows) continue;
    float const* const from = x + r * x_stride;
    __m512 const low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
    __m512 const high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
    pairs[r] = reinterpret_cast<__m512>(_mm512_cvtne2ps_pbh(high, low));
  }
  transpose(pairs);
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(to + 32 * i, pairs[i]);
}

}  // namespace

void gemm_nt_amx_bf16(GemmNt const& a) noexcept {
  auto const* const x = static_cast<uint16_t const*>(a.x);
  auto const* const w = static_cast<uint16_t const*>(a.w);
  configure_tiles();
  // Few rows wait for W's memory, which 16 streams at once draw best, and without help. Many use each block of W again,
  // and meanwhile the next is fetched.
  int64_t const w_rows = a.m <= kTileRows ? kTileRows : kBlockRows;
  bool const fetches = a.m > kBlockRows;
  for (int64_t j = 0; j < a.n; j += w_rows) {
    int64_t const n = a.n - j < w_rows ? a.n - j : w_rows;
    uint16_t const* const block_w = w + j * a.w_stride;
    bool const has_next = a.n - j >= 2 * w_rows;
    for (int64_t i = 0; i < a.m; i += kBlockRows) {
      int64_t const m = a.m - i < kBlockRows ? a.m - i : kBlockRows;
      uint16_t const* const ahead = fetches && has_next && i == 0 ? block_w + w_rows * a.w_stride : nullptr;
      multiply({block_w, a.w_stride, x + i / kPanelRows * a.x_stride, a.x_stride, a.y + i * a.y_stride + j, a.y_stride,
                m, n, a.k, ahead});
    }
  }
  _tile_release();
}

void pack_rows_amx_bf16(PackRows const& args) noexcept {
  int64_t const steps = (args.k + kPackedDepth - 1) / kPackedDepth;
  for (int64_t r = 0; r < args.m; r += kPanelRows) {
    int64_t const rows = args.m - r < kPanelRows ? args.m - r : kPanelRows;
    uint16_t* const panel = args.to + r / kPanelRows * steps * kTileElements;
    for (int64_t c = 0; c < args.count; c += kPackedDepth) {
      int64_t const count = args.count - c < kPackedDepth ? args.count - c : kPackedDepth;
      pack_tile(args.x + r * args.x_stride + c, args.x_stride, rows, count,
                panel + (args.first + c) / kPackedDepth * kTileElements);
    }
  }
}

}  // namespace sida::kernels
