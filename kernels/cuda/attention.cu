#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.hpp"

namespace sida::inline v0::cuda::kernels {
namespace {

constexpr int kQueries = 8;  // of one block, a warp each
constexpr int kKeys = 32;    // of a tile, a lane each
constexpr int kShared = 64;  // columns of keys and values that stand in shared memory at once
constexpr int kColumnsPerLane = static_cast<int>(kMaxHeadWidth) / kWarp;

/// Bias of a key at `key` for a query at `query`.
__device__ __forceinline__ float bias_of(Attention const& args, std::int64_t head, std::int64_t query,
                                         std::int64_t key) {
  std::int64_t const away = query < key ? key - query : query - key;
  std::int64_t bucket = args.position_buckets[away < args.max_distance ? away : args.max_distance];
  if (key > query) bucket += args.buckets / 2;
  return args.position_bias[bucket * args.heads + head];
}

/// Tile by tile: rows [first, first + kKeys) and columns [column, column + kShared) of a head of `from`.
__device__ __forceinline__ void load_tile(Attention const& args, float const* from, std::int64_t row, std::int64_t rows,
                                          std::int64_t head, std::int64_t column, float (&tile)[kKeys][kShared + 1]) {
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kShared; i += kQueries * kWarp) {
    int const r = i / kShared;
    int const c = i % kShared;
    bool const is_there = r < rows && column + c < args.d_kv;
    tile[r][c] = is_there ? from[(row + r) * args.stride + head * args.d_kv + column + c] : 0.0F;
  }
}

/// Softmax over tiles of keys, each of which rescales what came before (FlashAttention's way): no [tokens, tokens]
/// matrix. Grid: [sequences, heads, tiles of queries].
template <class T>
__global__ void __launch_bounds__(kQueries* kWarp) attention_kernel(Attention const args) {
  __shared__ float tile[kKeys][kShared + 1];
  __shared__ float queries[kQueries][kMaxHeadWidth];
  std::int64_t const first = args.offsets[blockIdx.x];
  std::int64_t const tokens = std::int64_t{args.offsets[blockIdx.x + 1]} - first;
  std::int64_t const head = blockIdx.y;
  int const warp = static_cast<int>(threadIdx.x) / kWarp;
  int const lane = static_cast<int>(threadIdx.x) % kWarp;
  std::int64_t const block_query = static_cast<std::int64_t>(blockIdx.z) * kQueries;
  if (block_query >= tokens) return;  // the whole block
  std::int64_t const query = block_query + warp < tokens ? block_query + warp : tokens - 1;
  for (std::int64_t c = lane; c < args.d_kv; c += kWarp) {
    queries[warp][c] = args.q[(first + query) * args.stride + head * args.d_kv + c];
  }
  float highest = -INFINITY;
  float sum = 0.0F;
  float context[kColumnsPerLane] = {};  // columns lane, lane + 32, …
  for (std::int64_t key = 0; key < tokens; key += kKeys) {
    std::int64_t const keys = tokens - key < kKeys ? tokens - key : kKeys;
    float score = 0.0F;
    for (std::int64_t column = 0; column < args.d_kv; column += kShared) {
      __syncthreads();
      load_tile(args, args.k, first + key, keys, head, column, tile);
      __syncthreads();
      int const columns = static_cast<int>(args.d_kv - column < kShared ? args.d_kv - column : kShared);
      for (int c = 0; c < columns; ++c) score = fmaf(queries[warp][column + c], tile[lane][c], score);
    }
    bool const is_there = lane < keys;
    score = is_there ? score + bias_of(args, head, query, key + lane) : -INFINITY;
    float const now_highest = fmaxf(highest, warp_max(score));
    float const rescale = expf(highest - now_highest);
    float const share = is_there ? expf(score - now_highest) : 0.0F;
    sum = sum * rescale + warp_sum(share);
    highest = now_highest;
#pragma unroll
    for (int i = 0; i < kColumnsPerLane; ++i) context[i] *= rescale;
#pragma unroll
    for (int half = 0; half < kColumnsPerLane / 2; ++half) {  // kShared columns are two of each lane
      if (half * kShared >= args.d_kv) break;
      __syncthreads();
      load_tile(args, args.v, first + key, keys, head, half * kShared, tile);
      __syncthreads();
      for (int j = 0; j < kKeys; ++j) {
        float const weight = __shfl_sync(kAllLanes, share, j);
        context[2 * half] = fmaf(weight, tile[j][lane], context[2 * half]);
        context[2 * half + 1] = fmaf(weight, tile[j][lane + kWarp], context[2 * half + 1]);
      }
    }
  }
  if (block_query + warp >= tokens) return;
  auto* const out = static_cast<T*>(args.context) + (first + query) * args.context_stride + head * args.d_kv;
#pragma unroll
  for (int i = 0; i < kColumnsPerLane; ++i) {
    std::int64_t const column = lane + i * kWarp;
    if (column < args.d_kv) out[column] = narrow<T>(context[i] / sum);
  }
}

}  // namespace

cudaError_t attention(cudaStream_t stream, Dtype dtype, Attention const& args) {
  dim3 const grid(static_cast<unsigned>(args.sequences), static_cast<unsigned>(args.heads),
                  blocks_for(args.longest, kQueries));
  return with_element(dtype,
                      [&]<class T>(T) { return launch(stream, grid, kQueries * kWarp, attention_kernel<T>, args); });
}

}  // namespace sida::inline v0::cuda::kernels
