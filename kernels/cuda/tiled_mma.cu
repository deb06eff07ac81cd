#include <type_traits>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/row_groups.cuh"

namespace sida::inline v0::cuda::kernels {
namespace {

// Groups of many rows, all of a class in one launch: a block computes a tile of rows by outputs, its operands come
// through shared memory several steps of k ahead. A sum over k runs in one order, whatever the tile and the class.
constexpr int kStep = 64;  // columns of k in shared memory at once: rows of 128 bytes, 8 chunks of 16
constexpr int kChunks = kStep / 8;

/// Warps and what each computes of a tile of ROWS rows of x and OUTPUTS rows of w.
template <int ROWS, int OUTPUTS, int WARPS_OVER_ROWS, int WARPS_OVER_OUTPUTS>
struct Tile {
  static constexpr int kRows = ROWS;
  static constexpr int kOutputs = OUTPUTS;
  static constexpr int kWarps = WARPS_OVER_ROWS * WARPS_OVER_OUTPUTS;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kWarpRows = ROWS / WARPS_OVER_ROWS;
  static constexpr int kWarpOutputs = OUTPUTS / WARPS_OVER_OUTPUTS;
  static constexpr int kAcross = WARPS_OVER_OUTPUTS;
  static constexpr int kRowTiles = kWarpRows / 16;       // of an mma
  static constexpr int kOutputTiles = kWarpOutputs / 8;  // of an mma; loaded in pairs
  static constexpr int kStages = ROWS + OUTPUTS > 192 ? 3 : 4;
  static constexpr int kStageElements = (ROWS + OUTPUTS) * kStep;
  static constexpr int kSharedBytes = kStages * kStageElements * 2;  // of 16-bit types
  static_assert(kOutputTiles % 2 == 0 && kRowTiles >= 1);
};

/// Groups of one launch, and the number of the first tile of each.
struct TileGroups {
  RowGroups groups;
  int first_tile[kGroupsPerLaunch];
};

/// Where chunk `chunk` of row `row` stands in a tile, in elements: so mixed that the 8 rows which a load of matrices
/// names lie in different banks.
__device__ __forceinline__ int place(int row, int chunk) { return (row * kChunks + (chunk ^ (row & 7))) * 8; }

/// What a block works on.
template <class T>
struct Job {
  T const* x;  // the tile's first row
  int rows;    // of the group from there on
  std::byte const* record;
  std::int64_t first_row;     // of y
  std::int64_t first_output;  // of y
};

template <class T, class Shape, Product PRODUCT>
__device__ __forceinline__ Job<T> job_of(GroupShape const& shape, TileGroups const& tiles, T const* x) {
  int const tile = static_cast<int>(blockIdx.x);
  int low = 0;
  int high = tiles.groups.count - 1;
  while (low < high) {  // the last group whose first tile is not after this one
    int const middle = (low + high + 1) / 2;
    if (tiles.first_tile[middle] <= tile) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  RowGroup const& group = tiles.groups.at[low];
  constexpr int kColumns = PRODUCT == Product::gated ? Shape::kOutputs / 2 : Shape::kOutputs;
  int const row_tiles = (group.rows + Shape::kRows - 1) / Shape::kRows;
  int const within = tile - tiles.first_tile[low];  // tiles that share weights are neighbours
  int const first = within % row_tiles * Shape::kRows;
  std::int64_t const row = std::int64_t{group.first} + first;
  return {x + row * shape.x_stride, group.rows - first, group.record, row,
          static_cast<std::int64_t>(within / row_tiles) * kColumns};
}

/// Row `row` of a tile's weights. With gates, half of each warp's rows are of the gate, half of the up projection, so
/// that a thread gets both sums of an output.
template <class T, class Shape, Product PRODUCT>
__device__ __forceinline__ T const* weight_row(GroupShape const& shape, Job<T> const& job, int row) {
  std::size_t matrix = shape.matrix;
  std::int64_t output = job.first_output + row;
  if constexpr (PRODUCT == Product::gated) {
    constexpr int kHalf = Shape::kWarpOutputs / 2;
    int const within = row % Shape::kWarpOutputs;
    if (within < kHalf) matrix = shape.gate;
    output = job.first_output + row / Shape::kWarpOutputs * kHalf + within % kHalf;
  }
  output = output < shape.n ? output : shape.n - 1;  // computed, and not written
  return reinterpret_cast<T const*>(job.record + matrix) + output * shape.k;
}

/// This thread's part of an operand's way to shared memory: the same chunks of the same rows at each step of k.
template <class T, int ROWS, int THREADS>
struct Copies {
  static constexpr int kEach = (ROWS * kChunks + THREADS - 1) / THREADS;
  static constexpr bool kIsEven = ROWS * kChunks % THREADS == 0;
  T const* from[kEach];
  int to[kEach];  // -1: none
  bool is_there[kEach];

  template <class Row>
  __device__ __forceinline__ void prepare(int rows_there, Row const& row_of) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      int const number = static_cast<int>(threadIdx.x) + i * THREADS;
      int const row = number / kChunks;
      bool const mine = kIsEven || row < ROWS;
      to[i] = mine ? place(row, number % kChunks) : -1;
      is_there[i] = mine && row < rows_there;
      from[i] = row_of(is_there[i] ? row : 0) + number % kChunks * 8;
    }
  }
  /// Columns from `at` on, of k: a multiple of 8.
  __device__ __forceinline__ void start(int at, int k, T* tile) const {
    int const column = static_cast<int>(threadIdx.x) % kChunks * 8;  // THREADS is a multiple of kChunks
    bool const in_k = at + column < k;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (!kIsEven && to[i] < 0) continue;
      copy_async(tile + to[i], in_k ? from[i] + at : from[i], is_there[i] && in_k);
    }
  }
};

template <class Shape>
using Sums = float[Shape::kRowTiles][Shape::kOutputTiles][4];

/// sums += x w^T over one step of k.
template <class T, class Shape>
__device__ __forceinline__ void multiply(T const* x_tile, T const* w_tile, Sums<Shape>& sums) {
  int const lane = static_cast<int>(threadIdx.x) % kWarp;
  int const warp = static_cast<int>(threadIdx.x) / kWarp;
  int const x_row = warp / Shape::kAcross * Shape::kWarpRows + lane % 16;
  int const w_row = warp % Shape::kAcross * Shape::kWarpOutputs + lane % 8 + lane / 16 * 8;
#pragma unroll
  for (int half = 0; half < kStep / 16; ++half) {
    MmaA x[Shape::kRowTiles];
    std::uint32_t w[Shape::kOutputTiles / 2][4];
#pragma unroll
    for (int i = 0; i < Shape::kRowTiles; ++i) {
      load_matrices(x[i].r, &x_tile[place(x_row + i * 16, half * 2 + lane / 16)]);
    }
#pragma unroll
    for (int i = 0; i < Shape::kOutputTiles / 2; ++i) {
      load_matrices(w[i], &w_tile[place(w_row + i * 16, half * 2 + lane / 8 % 2)]);
    }
#pragma unroll
    for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kOutputTiles; ++j) {
        mma<T>(sums[i][j], x[i], MmaB{{w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]}});
      }
    }
  }
}

/// Two neighbours of a row, of which `output` is the first one's number; in one store where that can be.
template <class T>
__device__ __forceinline__ void put_pair(T* to, float const (&values)[2], std::int64_t output, std::int64_t n) {
  struct alignas(2 * sizeof(T)) Pair {
    T at[2];
  };
  if (output + 1 < n && reinterpret_cast<std::uintptr_t>(to) % sizeof(Pair) == 0) {
    *reinterpret_cast<Pair*>(to) = {{narrow<T>(values[0]), narrow<T>(values[1])}};
    return;
  }
  if (output < n) to[0] = narrow<T>(values[0]);
  if (output + 1 < n) to[1] = narrow<T>(values[1]);
}

template <class T, class Shape, Product PRODUCT>
__device__ __forceinline__ void store(GroupShape const& shape, Job<T> const& job, Sums<Shape> const& sums, void* y) {
  constexpr bool kGated = PRODUCT == Product::gated;
  constexpr int kTiles = kGated ? Shape::kOutputTiles / 2 : Shape::kOutputTiles;
  int const lane = static_cast<int>(threadIdx.x) % kWarp;
  int const warp = static_cast<int>(threadIdx.x) / kWarp;
  int const first_row = warp / Shape::kAcross * Shape::kWarpRows + lane / 4;
  std::int64_t const first_output = job.first_output + warp % Shape::kAcross * kTiles * 8 + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int c = 0; c < 4; c += 2) {  // two outputs of a row
        int const row = first_row + i * 16 + c * 4;
        std::int64_t const output = first_output + j * 8;
        if (row >= job.rows) continue;
        std::int64_t const at = (job.first_row + row) * shape.y_stride + output;
        float values[2];
#pragma unroll
        for (int of = 0; of < 2; ++of) {
          float const sum = sums[i][j][c + of];
          values[of] = sum;
          if constexpr (kGated) values[of] = silu(sum) * sums[i][j + kTiles][c + of];
          if constexpr (PRODUCT == Product::hidden) values[of] = shape.kind == FfnKind::gelu ? gelu(sum) : relu(sum);
        }
        if constexpr (PRODUCT == Product::output) {
          put_pair(static_cast<float*>(y) + at, values, output, shape.n);
        } else {
          put_pair(static_cast<T*>(y) + at, values, output, shape.n);
        }
      }
    }
  }
}

template <class T, class Shape, Product PRODUCT>
__global__ void __launch_bounds__(Shape::kThreads)
    tiled_mma_kernel(GroupShape const shape, TileGroups const groups, T const* x, void* y) {
  constexpr int kStages = Shape::kStages;
  SIDA_DYNAMIC_SHARED(shared);
  T* const tiles = reinterpret_cast<T*>(shared);  // of each stage: the tile of x, the tile of w
  Job<T> const job = job_of<T, Shape, PRODUCT>(shape, groups, x);
  Copies<T, Shape::kRows, Shape::kThreads> x_copies;
  Copies<T, Shape::kOutputs, Shape::kThreads> w_copies;
  x_copies.prepare(job.rows, [&](int row) { return job.x + row * shape.x_stride; });
  w_copies.prepare(Shape::kOutputs, [&](int row) { return weight_row<T, Shape, PRODUCT>(shape, job, row); });
  int const k = static_cast<int>(shape.k);
  int const steps = (k + kStep - 1) / kStep;
  auto const x_tile = [&](int stage) { return tiles + stage * Shape::kStageElements; };
  auto const w_tile = [&](int stage) { return x_tile(stage) + Shape::kRows * kStep; };
  // Weights don't come from the kernel before this one: the first are on their way while that ends.
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) w_copies.start(stage * kStep, k, w_tile(stage));
  }
  let_next_kernel_start();
  wait_for_earlier_kernel();
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) x_copies.start(stage * kStep, k, x_tile(stage));
    commit_copies();
  }
  Sums<Shape> sums = {};
  for (int step = 0, stage = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // this step's operands are there, and the last one's were read
    int const next = step + kStages - 1;
    if (next < steps) {
      int const free = stage == 0 ? kStages - 1 : stage - 1;
      x_copies.start(next * kStep, k, x_tile(free));
      w_copies.start(next * kStep, k, w_tile(free));
    }
    commit_copies();
    multiply<T, Shape>(x_tile(stage), w_tile(stage), sums);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
  store<T, Shape, PRODUCT>(shape, job, sums, y);
}

/// Launches all groups of one class: those whose rows are in (above, up_to].
template <class T, class Shape, Product PRODUCT>
cudaError_t run_class(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, int above,
                      int up_to, T const* x, void* y) {
  constexpr int kColumns = PRODUCT == Product::gated ? Shape::kOutputs / 2 : Shape::kOutputs;
  auto const output_tiles = static_cast<int>((shape.n + kColumns - 1) / kColumns);
  auto* const kernel = tiled_mma_kernel<T, Shape, PRODUCT>;
  return for_launches(groups, above, up_to, [&](RowGroups const& some) {
    TileGroups tiles;
    tiles.groups = some;
    int count = 0;
    for (int i = 0; i < some.count; ++i) {
      tiles.first_tile[i] = count;
      count += (some.at[i].rows + Shape::kRows - 1) / Shape::kRows * output_tiles;
    }
    return launch_early(stream, static_cast<unsigned>(count), {Shape::kThreads, Shape::kSharedBytes}, kernel, shape,
                        tiles, x, y);
  });
}

constexpr int kNoLimit = 0x7FFFFFFF;

}  // namespace

cudaError_t tiled_mma(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                      void* y, Product product) {
  return with_half(shape.dtype, [&]<class T>(T) {
    auto const* const inputs = static_cast<T const*>(x);
    return with_product(product, [&]<Product PRODUCT>(ProductTag<PRODUCT>) {
      // Outputs of an FFN are fewer than its hidden columns: smaller tiles keep all processors busy.
      constexpr bool kFew = PRODUCT == Product::output;
      using Small = std::conditional_t<kFew, Tile<64, 64, 2, 4>, Tile<64, 128, 2, 4>>;
      using Large = std::conditional_t<kFew, Tile<128, 64, 4, 2>, Tile<128, 128, 2, 4>>;
      cudaError_t const error = run_class<T, Small, PRODUCT>(stream, shape, groups, 32, 64, inputs, y);
      if (error != cudaSuccess) return error;
      return run_class<T, Large, PRODUCT>(stream, shape, groups, 64, kNoLimit, inputs, y);
    });
  });
}

}  // namespace sida::inline v0::cuda::kernels
