#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <span>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/cuda/gemm.hpp"
#include "sida/layer/moe_layer.hpp"
#include "sida/layer/moe_shape.hpp"
#include "sida/route/router.hpp"
#include "sida/route/routing.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0::cuda {

/// What the caller lends for one step on a device.
struct MoeContext {
  Gemm& gemm;
  cudaStream_t stream = nullptr;
  std::span<std::byte> workspace = {};  ///< device memory, at least `workspace_bytes(tokens)`, aligned to 256
  /// Pinned host memory, at least `pinned_bytes(tokens)`, aligned to 64. The device reads it later: not to be used
  /// again before the stream has passed this step.
  std::span<std::byte> pinned = {};
  PlanPosition position = {};  ///< where this step stands in a submitted plan
};

/// How the tokens of a batch divide into sequences, in device memory; see `TokenLayout`.
struct DeviceTokenLayout {
  std::uint32_t const* sequence_offsets = nullptr;  ///< [sequences + 1]; only capacities need it
  std::int64_t sequences = 0;
  std::uint8_t const* real = nullptr;  ///< [tokens], or null when all are
};

namespace detail {

/// A router as the kernels know it.
struct DeviceRouter {
  std::int64_t k = 1;
  bool renormalised = false;
  CapacityRule rule = CapacityRule::none;
  std::int64_t capacity = 0;

  static DeviceRouter of(SwitchRouter const& router) noexcept {
    return {.k = 1, .renormalised = false, .rule = router.rule(), .capacity = router.capacity()};
  }
  static DeviceRouter of(TopKSoftmaxRouter const& router) noexcept {
    return {.k = router.k(), .renormalised = router.weights() == TopKSoftmaxRouter::Weights::renormalised};
  }
};

SIDA_API std::size_t moe_workspace_bytes(MoeShape const& shape, Dtype dtype, std::int64_t tokens) noexcept;
SIDA_API std::size_t moe_pinned_bytes(MoeShape const& shape, std::int64_t tokens) noexcept;
SIDA_API Status moe_route(MoeShape const& shape, DeviceRouter const& router, Matrix<float const, Tier::device> logits,
                          DeviceTokenLayout const& layout, Routing<> out, MoeContext const& context);
SIDA_API Status moe_apply(MoeShape const& shape, Dtype dtype, ExpertStore& store, Matrix<float const, Tier::device> x,
                          Routing<> routing, Matrix<float, Tier::device> y, bool adds, MoeContext const& context);

}  // namespace detail

/// An MoE layer on a device whose experts live in a store of device memory: what `sida::MoeLayer` is on a CPU. x and y
/// are float; activations are rounded to T before each product, sums are float. All experts of a wave go through few
/// launches together; those with more than 8 tokens have products of their own where tensor cores can't take their
/// rows (float, or widths that are no multiple of 8). Bytes of `y` depend on x, routing and weights alone (and the kind
/// of GPU and the libraries' versions), never on residency, waves or streams. The host waits where it must: in `route`,
/// since it needs the experts' ids, and in `apply` until copies of what is missing are on their way; for the device it
/// waits nowhere else. R: SwitchRouter or TopKSoftmaxRouter. Thread-compatible; the store is shared.
template <WeightElement T, Router R>
class MoeLayer {
 public:
  /// @return invalid_argument or unsupported, with the reason.
  static Status can_implement(MoeShape const& shape) { return sida::detail::can_implement(shape, dtype_of<T>); }

  /// `store` must outlive the layer.
  MoeLayer(MoeShape const& shape, ExpertStore& store, R router) : shape_(shape), store_(&store), router_(router) {}

  std::size_t workspace_bytes(std::int64_t tokens) const noexcept {
    return detail::moe_workspace_bytes(shape_, dtype_of<T>, tokens);
  }
  std::size_t pinned_bytes(std::int64_t tokens) const noexcept { return detail::moe_pinned_bytes(shape_, tokens); }

  /// Routing of `logits` [tokens, experts] into host memory, `out` [tokens, k]. Waits for the stream.
  /// @return as the router on a CPU, and device.
  Status route(Matrix<float const, Tier::device> logits, DeviceTokenLayout const& layout, Routing<> out,
               MoeContext const& context) const {
    return detail::moe_route(shape_, detail::DeviceRouter::of(router_), logits, layout, out, context);
  }

  /// Enqueues the routed experts: y, or y += with `adds`. x, y: [tokens, d_model], no aliasing; routing in host
  /// memory, of the router or of a plan.
  /// @return invalid_argument (shapes, ids, workspace, a store with smaller records or of host memory), device, and
  /// what the store returns; on failure `y` is unspecified.
  Status apply(Matrix<float const, Tier::device> x, Routing<> routing, Matrix<float, Tier::device> y, bool adds,
               MoeContext const& context) {
    return detail::moe_apply(shape_, dtype_of<T>, *store_, x, routing, y, adds, context);
  }

  MoeShape const& shape() const noexcept { return shape_; }

 private:
  MoeShape shape_;
  ExpertStore* store_;
  R router_;
};

}  // namespace sida::inline v0::cuda
