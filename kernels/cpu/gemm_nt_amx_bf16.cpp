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
constexpr int64_t kSums = 768;                 // rows of 16 sums that are kept at a time: 48 KiB

struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

/// GCC's intrinsics don't say that they read memory: what was written for them must not stay in registers, nor be
/// written again before they have read it.
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

/// One tile of sums to y, or added to it: rows of x by columns, which are rows of W.
void store_sums(float const (*sums)[kTileRows], float* y, int64_t y_stride, int64_t rows, int64_t cols, bool adds) {
  __m512 turned[16];
  for (int i = 0; i < 16; ++i) turned[i] = _mm512_load_ps(sums[i]);
  transpose(turned);
  auto const mask = static_cast<__mmask16>(0xffffU >> (16 - cols));
  if (adds) {
    for (int i = 0; i < 16; ++i) {
      if (i >= rows) continue;
      float* const to = y + i * y_stride;
      _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), turned[i]));
    }
  } else if (rows == kTileRows) {
    for (int i = 0; i < 16; ++i) _mm512_mask_storeu_ps(y + i * y_stride, mask, turned[i]);
  } else {
    for (int i = 0; i < 16; ++i) {
      if (i < rows) _mm512_mask_storeu_ps(y + i * y_stride, mask, turned[i]);
    }
  }
}

/// relu(sums) of rows [first, first + cols) of W, packed as rows of the next product: pairs lie side by side already.
/// Zeros from there to the end of a step.
void pack_relu(float const (*sums)[kTileRows], int64_t rows, int64_t first, int64_t cols, uint16_t* panel) {
  alignas(64) static constexpr uint16_t kInterleaved[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                            21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                            11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  __m512i const interleaved = _mm512_load_si512(kInterleaved);
  __m512 const zero = _mm512_setzero_ps();
  auto const present = static_cast<__mmask16>(0xffffU >> (kTileRows - rows));  // others may be 0 times infinity
  int64_t const end = (first + cols + kPackedDepth - 1) / kPackedDepth * kPackedDepth - first;
  uint16_t* to = panel + first * kTileRows;
  for (int64_t c = 0; c < end; c += 2, to += kPackedDepth) {
    // The second operand is what remains of a NaN.
    __m512 const even = c < cols ? _mm512_maskz_max_ps(present, zero, _mm512_load_ps(sums[c])) : zero;
    __m512 const odd = c + 1 < cols ? _mm512_maskz_max_ps(present, zero, _mm512_load_ps(sums[c + 1])) : zero;
    auto const both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(interleaved, both));
  }
}

/// One or two tiles of W's rows by one or two of x's, over some of k.
struct Block {
  uint16_t const* w;
  int64_t w_stride;   // from one row of a tile to the next
  uint16_t const* x;  // the first panel
  int64_t panel;      // elements from one to the next
  int64_t n, k;
  // Sums, of one row of W and of all rows of a panel each: the first, elements from one to the next, to the second
  // tile's of W, and to the second panel's.
  float* sums;
  int64_t sums_stride, second_w, second_x;
  bool first;  // of its sums: they begin at 0
  // Rows of weights that are read soon.
  uint16_t const* ahead;
  int64_t ahead_stride, ahead_rows;
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
void begin_sums(Block const& b) {
  if (b.first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  _tile_loadd(0, b.sums, b.sums_stride * 4);
  if constexpr (kX > 1) _tile_loadd(1, b.sums + b.second_x, b.sums_stride * 4);
  if constexpr (kW > 1) _tile_loadd(2, b.sums + b.second_w, b.sums_stride * 4);
  if constexpr (kW > 1 && kX > 1) _tile_loadd(3, b.sums + b.second_w + b.second_x, b.sums_stride * 4);
}

template <int kW, int kX>
void end_sums(Block const& b) {
  _tile_stored(0, b.sums, b.sums_stride * 4);
  if constexpr (kX > 1) _tile_stored(1, b.sums + b.second_x, b.sums_stride * 4);
  if constexpr (kW > 1) _tile_stored(2, b.sums + b.second_w, b.sums_stride * 4);
  if constexpr (kW > 1 && kX > 1) _tile_stored(3, b.sums + b.second_w + b.second_x, b.sums_stride * 4);
}

template <int kW, int kX>
void multiply(Block const& b) {
  begin_sums<kW, kX>(b);
  bool const is_whole = b.n == kW * kTileRows;
  int64_t const whole = is_whole ? b.k / kPackedDepth * kPackedDepth : 0;
  uint16_t const* const second = kW > 1 ? b.w + kTileRows * b.w_stride : b.w;
  uint16_t const* x = b.x;
  for (int64_t c = 0; c < whole; c += kPackedDepth, x += kTileElements) {
    for (int64_t r = 0; r < b.ahead_rows; ++r) _mm_prefetch(b.ahead + r * b.ahead_stride + c, _MM_HINT_T1);
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
      write_back(&w1);
    } else {
      step<kW, kX>(w0.elements[0], nullptr, 64, x, b.panel);
    }
    write_back(&w0);
  }
  end_sums<kW, kX>(b);
}

void multiply_block(Block const& b, int64_t m) {
  bool const two_w = b.n > kTileRows, two_x = m > kTileRows;
  if (two_w) return two_x ? multiply<2, 2>(b) : multiply<2, 1>(b);
  return two_x ? multiply<1, 2>(b) : multiply<1, 1>(b);
}

constexpr int64_t kFewRows = 64;     // of x
constexpr int64_t kFewOfShort = 96;  // the same, where rows of W are shorter than a page
constexpr int64_t kMostRows = 256;   // whose sums are kept at a time
constexpr int64_t kMostSpread = 4;
constexpr int64_t kDepth = 256;
static_assert(kDepth % kPackedDepth == 0);  // else a sum's order would depend on where k is cut
static_assert(kMostSpread * kBlockRows * (kFewOfShort / kTileRows) <= kSums);
static_assert(kBlockRows * (kMostRows / kTileRows) <= kSums);

/// How a product is cut up. Timed on a Sapphire Rapids.
struct Cut {
  int64_t rows = kFewOfShort;  // of x, whose sums are kept at a time
  int64_t w_rows = kBlockRows;
  int64_t spread = 1;  // a tile takes each so-many-th row of W
  int64_t depth;       // of k, in one go
  bool fetches;        // what is next of W

  explicit Cut(GemmNt const& a) : depth(a.k) {
    constexpr int64_t kPageElements = 2048;
    bool const is_short = a.w_stride < kPageElements;
    if (a.m <= (is_short ? kFewOfShort : kFewRows) || a.k == 0) {
      read_once(a.m, is_short);
    } else {
      stay_in_caches(a);
    }
  }

 private:
  /// W comes from memory, which is fastest when it is read in many places at once, each in another page. Where that
  /// keeps the processor's own prefetchers busy enough, fetching only takes time.
  void read_once(int64_t m, bool is_short) {
    bool const is_pair = m > kTileRows && m <= kBlockRows;
    if (is_short) spread = kMostSpread;
    if (m <= kTileRows || (is_short && is_pair)) w_rows = kTileRows;
    fetches = is_short ? is_pair || m > kFewRows : m > kBlockRows;
  }

  /// Rows of x stay in L2 for all of W, of which what is next is fetched meanwhile.
  void stay_in_caches(GemmNt const& a) {
    fetches = true;
    constexpr int64_t kInL2 = 524288;
    int64_t most = kInL2 / a.k / kBlockRows * kBlockRows;
    most = most < kFewRows ? kFewRows : most > kMostRows ? kMostRows : most;
    int64_t const parts = (a.m + most - 1) / most;
    rows = ((a.m + parts - 1) / parts + kBlockRows - 1) / kBlockRows * kBlockRows;
    // A block of W stays in L1 for all rows of x: unless its rows are so far apart that they are in each other's way.
    if (a.w_stride % 1024 != 0) depth = kDepth;
  }
};

struct Rows {
  int64_t first, count;
};

/// Columns of y: rows of W, `spread` tiles or pairs of tiles of them.
struct Columns {
  int64_t first, count, spread;
  bool has_next;  // as many follow
};

void store_group(GemmNt const& a, Rows const& rows, Columns const& cols, float const (*sums)[kTileRows],
                 int64_t panel_sums) {
  for (int64_t r = 0; r < rows.count; r += kTileRows, sums += panel_sums) {
    int64_t const count = rows.count - r < kTileRows ? rows.count - r : kTileRows;
    if (a.packed_relu != nullptr) {
      int64_t const panel = (rows.first + r) / kPanelRows * a.packed_relu_panel;
      pack_relu(sums, count, cols.first, cols.count, a.packed_relu + panel);
      continue;
    }
    float* const y = a.y + (rows.first + r) * a.y_stride + cols.first;
    for (int64_t c = 0; c < cols.count; c += kTileRows) {
      int64_t const width = cols.count - c < kTileRows ? cols.count - c : kTileRows;
      store_sums(sums + c, y + c, a.y_stride, count, width, a.adds);
    }
  }
}

/// All of k for some rows of x and of W.
void multiply_group(GemmNt const& a, Rows const& rows, Columns const& cols, Cut const& cut) {
  alignas(64) float sums[kSums][kTileRows];
  int64_t const panel_sums = cols.spread * cut.w_rows;
  auto const* const w = static_cast<uint16_t const*>(a.w) + cols.first * a.w_stride;
  auto const* const x = static_cast<uint16_t const*>(a.x) + rows.first / kPanelRows * a.x_stride;
  int64_t const parts = (rows.count + kBlockRows - 1) / kBlockRows;
  Block b;
  b.w_stride = cols.spread * a.w_stride;
  b.panel = a.x_stride;
  b.n = cols.spread > 1 ? cut.w_rows : cols.count;
  b.sums_stride = cols.spread * kTileRows;
  b.second_w = kTileRows * b.sums_stride;
  b.second_x = panel_sums * kTileRows;
  b.ahead_stride = parts * b.w_stride;
  int64_t c = 0;
  do {
    b.k = a.k - c < cut.depth ? a.k - c : cut.depth;
    b.first = c == 0;
    for (int64_t s = 0; s < cols.spread; ++s) {
      b.w = w + s * a.w_stride + c;
      for (int64_t part = 0; part < parts; ++part) {
        int64_t const row = part * kBlockRows;
        b.x = x + row / kPanelRows * a.x_stride + c * kTileRows;
        b.sums = sums[row / kTileRows * panel_sums + s];
        // Each part fetches its share, so that memory has work all the time.
        bool const is_last = s + 1 == cols.spread;
        bool const fetches = cut.fetches && (cols.has_next || !is_last);
        int64_t const next = is_last ? cols.spread * cut.w_rows - s : 1;
        b.ahead = fetches ? b.w + next * a.w_stride + part * b.w_stride : b.w;
        b.ahead_rows = fetches ? (cut.w_rows - part + parts - 1) / parts : 0;
        multiply_block(b, rows.count - row);
      }
    }
    c += cut.depth;
  } while (c < a.k);
  write_back(sums);
  store_group(a, rows, cols, sums, panel_sums);
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
  for (int64_t i = 0; i < 16; ++i) _mm512_storeu_ps(to + kPackedDepth * i, pairs[i]);
}

}  // namespace

void gemm_nt_amx_bf16(GemmNt const& a) noexcept {
  configure_tiles();
  Cut const cut(a);
  for (int64_t i = 0; i < a.m; i += cut.rows) {
    Rows const rows = {i, a.m - i < cut.rows ? a.m - i : cut.rows};
    int64_t spread = cut.spread;
    for (int64_t j = 0; j < a.n; j += spread * cut.w_rows) {
      int64_t const left = a.n - j;
      while (spread > 1 && left < spread * cut.w_rows) spread /= 2;
      int64_t const whole = spread * cut.w_rows;
      multiply_group(a, rows, {j, left < whole ? left : whole, spread, left >= 2 * whole}, cut);
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
