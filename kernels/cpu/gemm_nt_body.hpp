// The product for vectors of any width: included by files that are each compiled for one instruction set. All has
// internal linkage, since each of them makes its own of it.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/gemm_nt.hpp"
#include "kernels/cpu/unrolled.hpp"

namespace sida::kernels {
namespace {

// `V` is a width: V::Floats, a register of V::kLanes floats; `zero`, `multiply_add`; `load`, `load_f16` and
// `load_bf16`, which widen; `sum4`, the lanes of four registers in each of kSumRows rows added up in V's one order;
// kTile, rows of x by rows of W in a tile.
struct TileShape {
  int rows, cols;
};
inline constexpr int64_t kLineBytes = 64, kPageBytes = 4096;

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
  bool first;  // of its sum, and of y: it is written, not added to
};

/// What a tile fetches while it multiplies, so that memory works too: at each step `lines` cache lines, of `rows` rows
/// in turn. Memory is fastest when it is read in several places, each of them in another page.
struct Fetch {
  int lines, rows;
  bool into_l1;  // else into L2
};
inline constexpr Fetch kNothing = {0, 1, false};

/// The rows that are fetched, the first and how many bytes from one to the next.
struct Ahead {
  void const* first;
  int64_t stride;
};

/// Row `row` of y, and those after it that V adds up together with it.
template <class V, int Rows, int Cols>
void store_rows(typename V::Floats const (&sums)[Rows][Cols], int row, float* y, int64_t y_stride, bool first) {
  SIDA_UNROLLED for (int c = 0; c < Cols; c += 4) {
    typename V::Floats block[V::kSumRows][4];
    SIDA_UNROLLED for (int r = 0; r < V::kSumRows; ++r) {
      SIDA_UNROLLED for (int i = 0; i < 4; ++i) block[r][i] = sums[row + r < Rows ? row + r : row][c + i];
    }
    __m128 totals[V::kSumRows];
    V::sum4(block, totals);
    SIDA_UNROLLED for (int r = 0; r < V::kSumRows; ++r) {
      if (row + r >= Rows) continue;
      float* const to = y + (row + r) * y_stride + c;
      _mm_storeu_ps(to, first ? totals[r] : _mm_add_ps(_mm_loadu_ps(to), totals[r]));
    }
  }
}

/// The lanes of one register added up, in the same order.
template <class V>
float sum1(typename V::Floats const& lanes) {
  typename V::Floats block[V::kSumRows][4];
  for (auto& row : block) {
    for (auto& sum : row) sum = lanes;
  }
  __m128 totals[V::kSumRows];
  V::sum4(block, totals);
  return _mm_cvtss_f32(totals[0]);
}

template <class V, int Rows, int Cols>
void store(typename V::Floats const (&sums)[Rows][Cols], float* y, int64_t y_stride, bool first) {
  if constexpr (Cols % 4 == 0) {
    SIDA_UNROLLED for (int r = 0; r < Rows; r += V::kSumRows) store_rows<V, Rows, Cols>(sums, r, y, y_stride, first);
  } else {
    for (int r = 0; r < Rows; ++r, y += y_stride) {
      for (int c = 0; c < Cols; ++c) y[c] = first ? sum1<V>(sums[r][c]) : y[c] + sum1<V>(sums[r][c]);
    }
  }
}

/// Distances of rows from the first, each in a register of its own: computing them in a loop takes turns from
/// the multiplications.
template <int Rows>
struct Offsets {
  int64_t of[Rows];
  explicit Offsets(int64_t stride) {
    SIDA_UNROLLED for (int r = 0; r < Rows; ++r) {
      of[r] = r * stride;
      asm("" : "+r"(of[r]));
    }
  }
};

template <class Load, int Rows, int Cols>
inline __attribute__((always_inline)) void multiply_step(typename Load::Input const* x, Offsets<Rows> const& x_row,
                                                         typename Load::Element const* w, Offsets<Cols> const& w_row,
                                                         typename Load::Vector::Floats (&sums)[Rows][Cols]) {
  decltype(Load::load_input(x)) xs[Rows];
  SIDA_UNROLLED for (int r = 0; r < Rows; ++r) xs[r] = Load::load_input(x + x_row.of[r]);
  SIDA_UNROLLED for (int c = 0; c < Cols; ++c) {
    auto const ws = Load::load(w + w_row.of[c]);
    SIDA_UNROLLED for (int r = 0; r < Rows; ++r) sums[r][c] = Load::multiply_add(xs[r], ws, sums[r][c]);
  }
}

/// Rows x Cols outputs with one accumulator each: whatever the tile, an output sees the same operations. A function of
/// its own, so that its loop has all registers.
template <class Load, int Rows, int Cols, Fetch kFetch>
__attribute__((noinline)) void tile(Block<Load> const& b, Ahead const& fetched) {
  using V = typename Load::Vector;
  constexpr int64_t kStep = Load::kStep;
  typename V::Floats sums[Rows][Cols];
  SIDA_UNROLLED for (int r = 0; r < Rows; ++r) { SIDA_UNROLLED for (int c = 0; c < Cols; ++c) sums[r][c] = V::zero(); }
  typename Load::Input const* x = b.x;
  typename Load::Element const* w = b.w;
  Offsets<Rows> const x_row(b.x_stride);
  Offsets<Cols> const w_row(b.w_stride);
  int64_t const whole = b.k / kStep * kStep;
  auto const* const end = x + whole;
  // The asm hides that pointers advance evenly: else one register goes to each row, and there are too few.
  if constexpr (kFetch.lines > 0) {
    constexpr int kTurns = kFetch.rows / kFetch.lines;
    constexpr auto kInto = kFetch.into_l1 ? _MM_HINT_T0 : _MM_HINT_T1;
    auto const* ahead = static_cast<char const*>(fetched.first);
    int64_t const ahead_stride = fetched.stride;
    for (; end - x >= kTurns * kStep; ahead += kLineBytes) {
      asm("" : "+r"(ahead));
      SIDA_UNROLLED for (int turn = 0; turn < kTurns; ++turn, x += kStep, w += kStep) {
        asm("" : "+r"(x), "+r"(w));
        SIDA_UNROLLED for (int line = 0; line < kFetch.lines; ++line) {
          _mm_prefetch(ahead + (turn * kFetch.lines + line) * ahead_stride, kInto);
        }
        multiply_step<Load, Rows, Cols>(x, x_row, w, w_row, sums);
      }
    }
  }
  for (; x != end; x += kStep, w += kStep) {
    asm("" : "+r"(x), "+r"(w));
    multiply_step<Load, Rows, Cols>(x, x_row, w, w_row, sums);
  }
  if (int64_t const rest = b.k - whole; rest > 0) {
    SIDA_UNROLLED for (int r = 0; r < Rows; ++r) {
      auto const xs = Load::load_input(Padded<kStep, typename Load::Input>(x + x_row.of[r], rest).elements);
      SIDA_UNROLLED for (int c = 0; c < Cols; ++c) {
        auto const ws = Load::load(Padded<kStep, typename Load::Element>(w + w_row.of[c], rest).elements);
        sums[r][c] = Load::multiply_add(xs, ws, sums[r][c]);
      }
    }
  }
  store<V, Rows, Cols>(sums, b.y, b.y_stride, b.first);
}

/// `tile` of so many rows, up to `Most`.
template <class Load, int Cols, Fetch kFetch, int Most = Load::kTile.rows>
void tile_of(Block<Load> const& b, int64_t rows, Ahead const& ahead) {
  if constexpr (Most > 1) {
    if (rows < Most) return tile_of<Load, Cols, kFetch, Most - 1>(b, rows, ahead);
  }
  tile<Load, Most, Cols, kFetch>(b, ahead);
}

template <class Load>
int64_t tiles_of(int64_t m) {
  return (m + Load::kTile.rows - 1) / Load::kTile.rows;
}

/// Rows of each tile but the last, if m (> 0) are shared out evenly among as few tiles as possible.
template <class Load>
int64_t tile_rows(int64_t m) {
  return (m + tiles_of<Load>(m) - 1) / tiles_of<Load>(m);
}

/// All m rows of Cols columns. What is ahead, if anything, is fetched by the first tiles, each of them a part of every
/// row.
template <class Load, int Cols, Fetch kFetch>
void columns(Block<Load> b, int64_t m, Ahead ahead) {
  int64_t const row_bytes = b.k * static_cast<int64_t>(sizeof(*b.w));
  int64_t const part = b.k / Load::kStep * kFetch.lines / kFetch.rows * kLineBytes;
  int64_t left = ahead.first != nullptr ? row_bytes : 0;
  int64_t const most = tile_rows<Load>(m);
  for (int64_t i = 0; i < m; i += most) {
    int64_t const rows = m - i < most ? m - i : most;
    if (left > 0) {
      tile_of<Load, Cols, kFetch>(b, rows, ahead);
      ahead.first = static_cast<char const*>(ahead.first) + part;
      left -= part;
    } else {
      tile_of<Load, Cols, kNothing>(b, rows, {});
    }
    b.x += rows * b.x_stride;
    b.y += rows * b.y_stride;
  }
}

/// Cache lines of `rows` rows that a step consumes.
template <class Load>
constexpr int lines_a_step(int rows) {
  return static_cast<int>(rows * Load::kStep * static_cast<int64_t>(sizeof(typename Load::Element)) / kLineBytes);
}

/// `columns` with as many fetches a step as it takes to have all of what is ahead.
template <class Load>
void fetching_columns(Block<Load> const& b, int64_t m, Ahead const& ahead) {
  constexpr int kCols = Load::kTile.cols;
  constexpr int kNeeded = lines_a_step<Load>(kCols);
  int64_t const tiles = tiles_of<Load>(m);
  if (tiles >= kNeeded) return columns<Load, kCols, Fetch{1, kCols, false}>(b, m, ahead);
  if (2 * tiles >= kNeeded) return columns<Load, kCols, Fetch{2, kCols, false}>(b, m, ahead);
  columns<Load, kCols, Fetch{kCols, kCols, true}>(b, m, ahead);  // one tile: there is room in L1
}

/// m rows of a panel whose weights come from memory: its rows of W are read once, a few columns after the other, and
/// those of the next few fetched meanwhile. `next`: weights that are read after the panel's, or null.
template <class Load>
void from_memory(Block<Load> b, int64_t m, int64_t n, typename Load::Element const* next) {
  int64_t const w_bytes = b.w_stride * static_cast<int64_t>(sizeof(*b.w));
  if (m == 1) {  // 8 columns at once for enough independent chains
    for (; n >= 8; n -= 8, b.w += 8 * b.w_stride, b.y += 8) {
      auto const* const after = n >= 16 ? b.w + 8 * b.w_stride : next;
      tile<Load, 1, 8, Fetch{lines_a_step<Load>(8), 8, true}>(b, {after != nullptr ? after : b.w, w_bytes});
    }
  }
  constexpr int kCols = Load::kTile.cols;
  // Short rows share pages: then groups of columns fetch every second row, or every fourth, of those of the groups
  // that follow.
  int64_t spread = w_bytes >= kPageBytes ? 1 : 2 * w_bytes >= kPageBytes ? 2 : 4;
  while (spread > 1 && n < spread * kCols) spread /= 2;
  for (int64_t group = 0; n >= kCols; n -= kCols, b.w += kCols * b.w_stride, b.y += kCols, ++group) {
    int64_t const turn = group % spread;
    int64_t const to_next = (spread - turn) * kCols;  // columns until the groups that follow
    auto const* const after = n >= to_next + spread * kCols ? b.w + to_next * b.w_stride : next;
    fetching_columns<Load>(b, m, {after != nullptr ? after + turn * b.w_stride : nullptr, spread * w_bytes});
  }
  for (; n > 0; --n, b.w += b.w_stride, ++b.y) columns<Load, 1, kNothing>(b, m, {});
}

/// m rows of a panel whose weights are in L2: a tile's rows of x stay in L1 for all columns, and the next tile's are
/// fetched meanwhile.
template <class Load>
void from_cache(Block<Load> const& b, int64_t m, int64_t n) {
  constexpr int kCols = Load::kTile.cols;
  // A step may be half a line: then each line is asked for twice.
  constexpr int kSteps = static_cast<int>(kLineBytes / (Load::kStep * static_cast<int64_t>(sizeof(*b.x))));
  constexpr Fetch kOneRow = {1, kSteps, false};
  int64_t const most = tile_rows<Load>(m);
  for (int64_t i = 0; i < m; i += most) {
    int64_t const rows = m - i < most ? m - i : most;
    int64_t next = i + most;  // row of x
    Block<Load> t = b;
    t.x += i * b.x_stride;
    t.y += i * b.y_stride;
    int64_t c = 0;
    for (; n - c >= kCols; c += kCols, t.w += kCols * b.w_stride, t.y += kCols) {
      if (next < m && next < i + 2 * most) {
        tile_of<Load, kCols, kOneRow>(t, rows, {b.x + next++ * b.x_stride, 0});
      } else {
        tile_of<Load, kCols, kNothing>(t, rows, {});
      }
    }
    for (; c < n; ++c, t.w += b.w_stride, ++t.y) tile_of<Load, 1, kNothing>(t, rows, {});
  }
}

/// Columns in panels, one segment of k at a time, so that W is read from memory once.
template <class Load>
void run(GemmNt const& a) {
  constexpr int64_t kPanel = 64;  // its segment stays in L2
  constexpr int64_t kFew = 16;    // rows whose whole length stays in L1 or L2
  constexpr int64_t kMany = 96;   // rows from which on a panel's weights are used again from L2,
  constexpr int64_t kFirst = 36;  // by all but the first of them
  if (a.m == 0) return;
  auto const* const x = static_cast<typename Load::Input const*>(a.x);
  auto const* const w = static_cast<typename Load::Element const*>(a.w);
  // Few rows read W in the order of its memory.
  int64_t const few_columns = a.m == 1 ? 8 : Load::kTile.cols;
  int64_t const panel = a.m <= kFew && a.k > kSegment ? few_columns : kPanel;
  int64_t const first = a.m < kMany ? a.m : kFirst;
  for (int64_t j = 0; j < a.n; j += panel) {
    int64_t const cols = a.n - j < panel ? a.n - j : panel;
    auto const* const panel_w = w + j * a.w_stride;
    auto const* const next_panel = a.n - j >= 2 * panel ? panel_w + panel * a.w_stride : nullptr;
    int64_t c = 0;
    do {
      int64_t const length = a.k - c < kSegment ? a.k - c : kSegment;
      auto const* const next = c + length < a.k ? panel_w + c + length : next_panel;
      Block<Load> b = {x + c, a.x_stride, panel_w + c, a.w_stride, a.y + j, a.y_stride, length, c == 0 && !a.adds};
      from_memory<Load>(b, first, cols, next);
      if (first < a.m) {
        b.x += first * a.x_stride;
        b.y += first * a.y_stride;
        from_cache<Load>(b, a.m - first, cols);
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
