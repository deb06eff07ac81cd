#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.hpp"
#include "sida/route/routing.hpp"

namespace sida::inline v0::cuda::kernels {
namespace {

constexpr int kTokensPerBlock = 8;  // a warp each
constexpr int kCountingThreads = 128;

/// A candidate for the highest probability: ties go to the lower id.
struct Best {
  float probability;
  int expert;
};

__device__ __forceinline__ Best better(Best a, Best b) {
  bool const second = b.probability > a.probability || (b.probability == a.probability && b.expert < a.expert);
  return second ? b : a;
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    Best const other{__shfl_xor_sync(kAllLanes, best.probability, offset),
                     __shfl_xor_sync(kAllLanes, best.expert, offset)};
    best = better(best, other);
  }
  return best;
}

struct TopK {
  std::int64_t k;
  bool renormalised;
};

/// One warp a token: rank after rank the highest probability below the last one. Grid: tokens / kTokensPerBlock.
__global__ void __launch_bounds__(kTokensPerBlock* kWarp)
    top_k_kernel(TopK rule, float const* logits, std::int64_t stride, std::int64_t tokens, int n,
                 std::uint8_t const* real, std::uint16_t* experts, float* weights) {
  std::int64_t const token = static_cast<std::int64_t>(blockIdx.x) * kTokensPerBlock + threadIdx.x / kWarp;
  int const lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= tokens) return;
  float const* const row = logits + token * stride;
  std::uint16_t* const expert_row = experts + token * rule.k;
  float* const weight_row = weights + token * rule.k;
  if (real != nullptr && real[token] == 0) {
    for (std::int64_t r = lane; r < rule.k; r += kWarp) {
      expert_row[r] = kNoExpert;
      weight_row[r] = 0.0F;
    }
    return;
  }
  bool bad = false;  // NaN or +infinity
  float highest = -INFINITY;
  for (int e = lane; e < n; e += kWarp) {
    bad |= !(row[e] < INFINITY);
    highest = fmaxf(highest, row[e]);
  }
  bad = __any_sync(kAllLanes, bad ? 1 : 0) != 0;
  highest = warp_max(highest);
  float share = 0.0F;
  for (int e = lane; e < n; e += kWarp) share += expf(row[e] - highest);
  float const sum = warp_sum(share);
  if (bad || !(highest > -INFINITY)) {  // and a row of nothing but -infinity
    for (std::int64_t r = lane; r < rule.k; r += kWarp) {
      expert_row[r] = kNoExpert;
      weight_row[r] = NAN;
    }
    return;
  }
  Best last{INFINITY, -1};
  float total = 0.0F;
  for (std::int64_t r = 0; r < rule.k; ++r) {
    Best best{-1.0F, n};
    for (int e = lane; e < n; e += kWarp) {
      float const probability = expf(row[e] - highest) / sum;
      bool const is_left = probability < last.probability || (probability == last.probability && e > last.expert);
      if (is_left) best = better(best, {probability, e});
    }
    last = warp_best(best);
    float const weight = last.probability;
    total += weight;
    if (lane == 0) {
      expert_row[r] = static_cast<std::uint16_t>(last.expert);
      weight_row[r] = weight;
    }
  }
  if (!rule.renormalised) return;
  __syncwarp();
  for (std::int64_t r = lane; r < rule.k; r += kWarp) weight_row[r] = weight_row[r] / total;
}

/// One block a sequence; each thread counts the tokens of its own experts, in sequence order, and marks the weight,
/// which is positive, of a token beyond the capacity.
__global__ void __launch_bounds__(kCountingThreads)
    capacity_kernel(SwitchRoute const rule, int n, std::uint16_t* experts, float* weights) {
  std::uint32_t const first = rule.offsets[blockIdx.x];
  std::uint32_t const end = rule.offsets[blockIdx.x + 1];
  for (int e = static_cast<int>(threadIdx.x); e < n; e += kCountingThreads) {
    std::int64_t taken = 0;
    for (std::uint32_t t = first; t < end; ++t) {
      if (experts[t] == e && ++taken > rule.capacity) weights[t] = -weights[t];
    }
  }
  __syncthreads();
  for (std::uint32_t t = first + threadIdx.x; t < end; t += kCountingThreads) {
    if (!(weights[t] < 0.0F)) continue;
    experts[t] = kNoExpert;
    weights[t] = rule.rule == CapacityRule::hf ? 0.0F : -weights[t];
  }
}

}  // namespace

cudaError_t route_top_k(cudaStream_t stream, float const* logits, std::int64_t stride, std::int64_t tokens,
                        std::int64_t n, std::int64_t k, bool renormalised, std::uint8_t const* real,
                        std::uint16_t* experts, float* weights) {
  return launch(stream, blocks_for(tokens, kTokensPerBlock), kTokensPerBlock * kWarp, top_k_kernel,
                TopK{k, renormalised}, logits, stride, tokens, static_cast<int>(n), real, experts, weights);
}

cudaError_t route_switch(cudaStream_t stream, SwitchRoute const& rule, float const* logits, std::int64_t stride,
                         std::int64_t tokens, std::int64_t n, std::uint16_t* experts, float* weights) {
  cudaError_t const error = route_top_k(stream, logits, stride, tokens, n, 1, false, rule.real, experts, weights);
  if (error != cudaSuccess || rule.rule == CapacityRule::none) return error;
  return launch(stream, static_cast<unsigned>(rule.sequences), kCountingThreads, capacity_kernel, rule,
                static_cast<int>(n), experts, weights);
}

}  // namespace sida::inline v0::cuda::kernels
