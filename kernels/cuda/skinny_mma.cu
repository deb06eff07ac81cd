#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/row_groups.cuh"

namespace sida::inline v0::cuda::kernels {
namespace {

// Rows of x are the columns of a tensor core's product, 8 to a tile, 16 rows of w its rows: a weight is loaded once, 16
// bytes at a time, straight into the registers that the product reads. That works since a sum over k may run in any
// order: the 8 elements that a lane loads stand for those that the instruction names, in w and in x alike.
constexpr int kWarps = 4;  // share k
constexpr int kOutputs = 16;
constexpr int kChunk = 32;  // columns of k that a warp takes at once: 8 for each of 4 lanes

/// 16 bytes, or zeros.
__device__ __forceinline__ uint4 load(void const* from, bool is_there) {
  return is_there ? __ldg(static_cast<uint4 const*>(from)) : make_uint4(0, 0, 0, 0);
}

/// Chunks whose loads are under way together: fewer where more registers hold inputs.
template <int TILES>
inline constexpr int kDepth = TILES == 4 ? 2 : 4;

/// A warp's share of k for one matrix, and its loads.
template <class T, int TILES>
struct Stripe {
  static constexpr int kAhead = kDepth<TILES>;
  T const* w[2];  // the lane's rows: `row`, `row + 8`
  int k;
  int first;  // chunk
  int end;
  uint4 weights[kAhead][2];

  __device__ __forceinline__ Stripe(T const* matrix, std::int64_t first_output, GroupShape const& shape)
      : k(static_cast<int>(shape.k)) {
    int const row = static_cast<int>(threadIdx.x) % kWarp / 4;
    int const warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      std::int64_t const output = first_output + row + i * 8;
      w[i] = matrix + (output < shape.n ? output : shape.n - 1) * shape.k;
    }
    int const chunks = (k + kChunk - 1) / kChunk;
    int const share = (chunks + kWarps - 1) / kWarps;
    first = warp * share;
    end = first + share < chunks ? first + share : chunks;
  }
  __device__ __forceinline__ int column(int ahead) const {
    return (first + ahead) * kChunk + static_cast<int>(threadIdx.x) % 4 * 8;
  }
  __device__ __forceinline__ bool has(int ahead) const {
    return first + ahead < end && column(ahead) < k;  // k is a multiple of 8
  }
  __device__ __forceinline__ void load_weights() {
#pragma unroll
    for (int d = 0; d < kAhead; ++d) {
#pragma unroll
      for (int i = 0; i < 2; ++i) weights[d][i] = load(w[i] + column(d), has(d));
    }
  }
  /// sums += w x. The first chunks' weights were asked for before. rows: where each tile's row of this lane begins.
  __device__ __forceinline__ void multiply(T const* x, int const (&rows)[TILES], float (&sums)[TILES][4]) {
    while (true) {
      uint4 inputs[kAhead][TILES];
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) inputs[d][tile] = load(x + rows[tile] + column(d), has(d));
      }
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        uint4 const upper = weights[d][0];
        uint4 const lower = weights[d][1];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
          uint4 const input = inputs[d][tile];
          mma<T>(sums[tile], MmaA{{upper.x, lower.x, upper.y, lower.y}}, MmaB{{input.x, input.y}});
          mma<T>(sums[tile], MmaA{{upper.z, lower.z, upper.w, lower.w}}, MmaB{{input.z, input.w}});
        }
      }
      first += kAhead;
      if (first >= end) return;
      load_weights();
    }
  }
};

/// The warps' shares of a block's outputs, side by side.
template <int TILES>
using Shares = float[kWarps][TILES * 8][kOutputs + 1];

template <int TILES>
__device__ __forceinline__ void put(Shares<TILES>& shares, float const (&sums)[TILES][4]) {
  int const warp = static_cast<int>(threadIdx.x) / kWarp;
  int const group = static_cast<int>(threadIdx.x) % kWarp / 4;
  int const thread = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) shares[warp][tile * 8 + 2 * thread + i % 2][group + i / 2 * 8] = sums[tile][i];
  }
}

template <int TILES>
__device__ __forceinline__ float take(Shares<TILES> const& shares, int column, int output) {
  float sum = shares[0][column][output];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) sum += shares[warp][column][output];
  return sum;
}

/// How many blocks share a processor, and so its registers: as many as they do without spilling any.
constexpr int blocks_per_processor(int tiles, Product product) {
  if (tiles > 1) return 4;
  return product == Product::gated ? 5 : 6;
}

/// Grid: [blocks of outputs, groups].
template <class T, int TILES, Product PRODUCT>
__global__ void __launch_bounds__(kWarps* kWarp, blocks_per_processor(TILES, PRODUCT))
    skinny_mma_kernel(GroupShape const shape, RowGroups const groups, T const* x, void* y) {
  constexpr bool kGated = PRODUCT == Product::gated;
  __shared__ Shares<TILES> shares[kGated ? 2 : 1];
  RowGroup const& group = groups.at[blockIdx.y];
  std::int64_t const first_output = static_cast<std::int64_t>(blockIdx.x) * kOutputs;
  T const* const inputs = x + group.first * shape.x_stride;
  int rows[TILES];
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
    // Columns beyond the group's rows, and outputs beyond n, are computed from the last ones and not written.
    int const row = tile * 8 + static_cast<int>(threadIdx.x) % kWarp / 4;
    rows[tile] = (row < group.rows ? row : group.rows - 1) * static_cast<int>(shape.x_stride);
  }
  // Weights don't come from the kernel before this one: the first are on their way while that ends.
  Stripe<T, TILES> stripe(reinterpret_cast<T const*>(group.record + shape.matrix), first_output, shape);
  stripe.load_weights();
  let_next_kernel_start();
  wait_for_earlier_kernel();
  float sums[TILES][4] = {};
  stripe.multiply(inputs, rows, sums);
  put<TILES>(shares[0], sums);
  if constexpr (kGated) {
    Stripe<T, TILES> gate(reinterpret_cast<T const*>(group.record + shape.gate), first_output, shape);
    gate.load_weights();
    float gate_sums[TILES][4] = {};
    gate.multiply(inputs, rows, gate_sums);
    put<TILES>(shares[1], gate_sums);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < TILES * 8 * kOutputs; i += kWarps * kWarp) {
    int const column = i / kOutputs;
    std::int64_t const output = first_output + i % kOutputs;
    if (column >= group.rows || output >= shape.n) continue;
    float const sum = take<TILES>(shares[0], column, i % kOutputs);
    std::int64_t const at = (group.first + column) * shape.y_stride + output;
    if constexpr (PRODUCT == Product::output) {
      static_cast<float*>(y)[at] = sum;
    } else if constexpr (kGated) {
      static_cast<T*>(y)[at] = narrow<T>(silu(take<TILES>(shares[1], column, i % kOutputs)) * sum);
    } else {
      static_cast<T*>(y)[at] = narrow<T>(shape.kind == FfnKind::gelu ? gelu(sum) : relu(sum));
    }
  }
}

template <class T, int TILES, Product PRODUCT>
cudaError_t run_class(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, T const* x,
                      void* y) {
  return for_launches(groups, (TILES == 1 ? 0 : TILES * 4), TILES * 8, [&](RowGroups const& some) {
    dim3 const grid(blocks_for(shape.n, kOutputs), static_cast<unsigned>(some.count));
    return launch_early(stream, grid, kWarps * kWarp, skinny_mma_kernel<T, TILES, PRODUCT>, shape, some, x, y);
  });
}

}  // namespace

cudaError_t skinny_mma(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                       void* y, Product product) {
  return with_half(shape.dtype, [&]<class T>(T) {
    auto const* const inputs = static_cast<T const*>(x);
    return with_product(product, [&]<Product PRODUCT>(ProductTag<PRODUCT>) {
      cudaError_t error = run_class<T, 1, PRODUCT>(stream, shape, groups, inputs, y);
      if (error == cudaSuccess) error = run_class<T, 2, PRODUCT>(stream, shape, groups, inputs, y);
      if (error == cudaSuccess) error = run_class<T, 4, PRODUCT>(stream, shape, groups, inputs, y);
      return error;
    });
  });
}

}  // namespace sida::inline v0::cuda::kernels
