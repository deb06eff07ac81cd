#pragma once

#include <span>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.hpp"

/// What the products over groups of rows share: by multiply-add, for every type and shape, and by tensor cores, for
/// 16-bit types whose rows are whole multiples of 16 bytes.
namespace sida::inline v0::cuda::kernels {

/// What becomes of the sums.
enum class Product : std::uint8_t {
  hidden,  // y of T = act(sum)
  gated,   // y of T = silu(gate's sum) * sum
  output,  // y of float = sum
};

template <Product PRODUCT>
struct ProductTag {};

/// Calls `f` with a tag of `product`.
template <class F>
cudaError_t with_product(Product product, F const& f) {
  switch (product) {
    case Product::hidden: return f(ProductTag<Product::hidden>());
    case Product::gated: return f(ProductTag<Product::gated>());
    case Product::output: return f(ProductTag<Product::output>());
  }
  return cudaErrorInvalidValue;
}

/// Calls `f` with a value of the 16-bit type that `dtype` names.
template <class F>
cudaError_t with_half(Dtype dtype, F const& f) {
  return dtype == Dtype::bf16 ? f(bf16{}) : f(fp16{});
}

inline constexpr int kGroupsPerLaunch = 128;  // passed by value: 2 KiB of parameters

struct RowGroups {
  RowGroup at[kGroupsPerLaunch];
  int count;
};

/// Calls `f` for the groups of a class, whose rows are in (above, up_to], as many at a time as go with a launch.
template <class F>
cudaError_t for_launches(std::span<RowGroup const> groups, int above, int up_to, F const& f) {
  std::size_t next = 0;
  while (next < groups.size()) {
    RowGroups some;
    some.count = 0;
    for (; next < groups.size() && some.count < kGroupsPerLaunch; ++next) {
      RowGroup const& group = groups[next];
      if (group.rows > above && group.rows <= up_to) some.at[some.count++] = group;
    }
    if (some.count == 0) return cudaSuccess;
    if (cudaError_t const error = f(some); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t skinny_mma(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                       void* y, Product product);
cudaError_t tiled_mma(cudaStream_t stream, GroupShape const& shape, std::span<RowGroup const> groups, void const* x,
                      void* y, Product product);

}  // namespace sida::inline v0::cuda::kernels
