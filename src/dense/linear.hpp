#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>

#include "sida/core/dtype.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/kernels/cpu.hpp"

/// Linear layers of whatever is not an expert: encoders and predictors. Internal, and inline, since the library and
/// the model are linked apart. Each output element is computed by one task in an order that does not depend on how
/// the tasks are shared out, so that bytes don't depend on threads.
namespace sida::inline v0::dense {

/// A linear layer's weight or an embedding, [rows, cols] row-major, in its type on disk.
struct WeightMatrix {
  std::byte const* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Dtype dtype = Dtype::f32;

  std::byte const* row(std::int64_t r) const noexcept {
    return data + r * cols * static_cast<std::int64_t>(sida::size_bytes(dtype));
  }
};

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }

/// Rows that linear layers read, [tokens, in], and the same packed if they are.
struct LinearRows {
  Matrix<float const> x;
  std::byte const* packed = nullptr;

  LinearRows(Matrix<float const> rows, std::byte const* packed_rows = nullptr) : x(rows), packed(packed_rows) {}
  LinearRows(Matrix<float> rows) : x(rows) {}
};

/// One linear layer over the rows of an input that several may share: y = x w^T, or y += x w^T.
struct LinearJob {
  WeightMatrix w;   // [out, in]
  Matrix<float> y;  // [tokens, out]
  bool adds = false;
};

/// A block of outputs of one linear layer: all that one task computes.
struct LinearBlock {
  Matrix<float> y;  // the block, within the job's y
  std::int64_t first_row = 0;
  std::int64_t first_col = 0;
};

/// Rows and columns of y that one task computes.
struct LinearBlocking {
  std::int64_t rows, cols;

  std::int64_t tasks(LinearJob const& job) const noexcept {
    return ceil_div(job.y.rows, rows) * ceil_div(job.y.cols, cols);
  }
};

// The more rows share a block's weights, and the more columns its rows of x, the faster it is, if all threads have
// work.
inline constexpr LinearBlocking kBlockings[] = {{256, 128}, {256, 64}, {128, 64}, {64, 64}};
static_assert(std::ranges::all_of(kBlockings, [](LinearBlocking const& blocks) {
  return blocks.rows % PackedRows::kPanelRows == 0 && blocks.cols % PackedRows::kColumns == 0;
}));

inline std::int64_t linear_tasks(LinearBlocking const& blocking, std::span<LinearJob const> jobs) noexcept {
  std::int64_t total = 0;
  for (auto const& job : jobs) total += blocking.tasks(job);
  return total;
}

/// The largest that leaves each thread some tasks, or the smallest.
inline LinearBlocking choose_blocking(std::span<LinearJob const> jobs, std::size_t threads) noexcept {
  auto const enough = 4 * static_cast<std::int64_t>(threads);
  for (LinearBlocking const& blocks : kBlockings) {
    if (linear_tasks(blocks, jobs) >= enough) return blocks;
  }
  return std::end(kBlockings)[-1];
}

/// What task `task` of `job` computes, and how; tasks that share columns, and so weights, are neighbours.
struct LinearTask {
  LinearBlock block;
  GemmArgs args;

  LinearTask(CpuIsa isa, LinearRows const& from, LinearJob const& job, LinearBlocking const& blocking,
             std::int64_t task) noexcept {
    std::int64_t const row_blocks = ceil_div(job.y.rows, blocking.rows);
    std::int64_t const row = task % row_blocks * blocking.rows;
    std::int64_t const col = task / row_blocks * blocking.cols;
    std::int64_t const rows = std::min(blocking.rows, job.y.rows - row);
    std::int64_t const cols = std::min(blocking.cols, job.y.cols - col);
    block = {{job.y.data + row * job.y.stride + col, rows, cols, job.y.stride}, row, col};
    args.x = from.x.data + row * from.x.stride;
    args.x_stride = from.x.stride;
    args.w = job.w.row(col);
    args.w_stride = job.w.cols;
    args.w_dtype = job.w.dtype;
    args.y = block.y.data;
    args.y_stride = block.y.stride;
    args.m = rows;
    args.n = cols;
    args.k = from.x.cols;
    args.adds = job.adds;
    PackedRows const packing = {isa, job.w.dtype, from.x.cols};
    if (from.packed != nullptr && packing.is_needed()) args.packed = from.packed + packing.bytes(row);
  }
};

/// Rows for products with weights of type `dtype`: `make(first, count)` writes some of x, which are packed at once,
/// while they are in a cache, if `isa` wants that. room: PackedRows::bytes of x.
template <class Make>
LinearRows make_rows(ThreadPool& pool, CpuIsa isa, Dtype dtype, Matrix<float const> x, std::byte* room,
                     Make const& make) {
  PackedRows const packing = {isa, dtype, x.cols};
  constexpr std::int64_t kRows = PackedRows::kPanelRows;
  auto const task = [&](std::size_t panel) {
    std::int64_t const first = static_cast<std::int64_t>(panel) * kRows;
    std::int64_t const count = std::min(kRows, x.rows - first);
    make(first, count);
    if (!packing.is_needed()) return;
    packing.pack(x.data + first * x.stride, x.stride, count, 0, x.cols, room + packing.bytes(first));
  };
  pool.run(static_cast<std::size_t>(ceil_div(x.rows, kRows)), task);
  return {x, packing.is_needed() ? room : nullptr};
}

/// Packs rows that are there.
inline LinearRows pack_rows(ThreadPool& pool, CpuIsa isa, Dtype dtype, Matrix<float const> x, std::byte* room) {
  if (!PackedRows{isa, dtype, x.cols}.is_needed()) return x;
  return make_rows(pool, isa, dtype, x, room, [](std::int64_t, std::int64_t) {});
}

/// Calls `run(LinearTask)` for each task of all jobs over the same rows.
template <class Run>
void for_linear_tasks(ThreadPool& pool, CpuIsa isa, LinearRows const& x, std::span<LinearJob const> jobs,
                      Run const& run) {
  LinearBlocking const blocking = choose_blocking(jobs, pool.concurrency());
  auto const task = [&](std::size_t number) {
    auto rest = static_cast<std::int64_t>(number);
    for (auto const& job : jobs) {
      if (rest < blocking.tasks(job)) return run(LinearTask(isa, x, job, blocking, rest));
      rest -= blocking.tasks(job);
    }
  };
  pool.run(static_cast<std::size_t>(linear_tasks(blocking, jobs)), task);
}

/// Runs all jobs over the same rows; `after(block)` is called on each block once it is there, by its task.
template <class After>
void run_linear(ThreadPool& pool, CpuIsa isa, LinearRows const& x, std::span<LinearJob const> jobs, After after) {
  for_linear_tasks(pool, isa, x, jobs, [&](LinearTask const& task) {
    gemm_nt(isa, task.args);
    after(task.block);
  });
}

inline void run_linear(ThreadPool& pool, CpuIsa isa, LinearRows const& x, std::span<LinearJob const> jobs) {
  run_linear(pool, isa, x, jobs, [](LinearBlock const&) {});
}

/// relu of the job's y, packed for the next job, without y. Precondition: packs_relu(packing), and x is packed.
inline void run_linear_relu_pack(ThreadPool& pool, LinearRows const& x, LinearJob const& job, PackedRows const& packing,
                                 std::byte* packed) {
  for_linear_tasks(pool, packing.isa, x, {&job, 1}, [&](LinearTask const& task) {
    gemm_nt_relu_pack(task.args, packing, task.block.first_col, packed + packing.bytes(task.block.first_row));
  });
}

/// block += bias[out]
inline void add_bias(float const* bias, LinearBlock const& block) noexcept {
  for (std::int64_t r = 0; r < block.y.rows; ++r) {
    auto const row = block.y.row(r);
    for (std::size_t c = 0; c < row.size(); ++c) row[c] += bias[static_cast<std::size_t>(block.first_col) + c];
  }
}

template <class T>
void widen(std::byte const* source, std::span<float> out) noexcept {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, source + i * sizeof(T), sizeof(T));
    out[i] = to_float(value);
  }
}

/// Widens `out.size()` elements of type `dtype`.
inline void widen(Dtype dtype, std::byte const* source, std::span<float> out) noexcept {
  switch (dtype) {
    case Dtype::f32: return widen<float>(source, out);
    case Dtype::f16: return widen<fp16>(source, out);
    case Dtype::bf16: return widen<bf16>(source, out);
  }
}

/// Widens row `row` of `weight` into `out`, [cols].
inline void widen_row(WeightMatrix const& weight, std::int64_t row, std::span<float> out) noexcept {
  widen(weight.dtype, weight.row(row), out);
}

}  // namespace sida::inline v0::dense
