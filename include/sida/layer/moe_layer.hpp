#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/core/stream.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/detail/moe_layer_core.hpp"
#include "sida/kernels/cpu.hpp"
#include "sida/layer/moe_shape.hpp"
#include "sida/route/router.hpp"
#include "sida/route/routing.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0 {

/// What the caller lends for one step.
struct MoeContext {
  ThreadPool& pool;
  std::span<std::byte> workspace;  ///< at least `workspace_bytes(tokens)`, aligned to 64
  StreamRef stream = StreamRef::host();
  PlanPosition position = {};  ///< where this step stands in a submitted plan
};

/// Element types that weights may have.
template <class T>
concept WeightElement = std::same_as<T, float> || std::same_as<T, bf16> || std::same_as<T, fp16>;

/// An MoE layer whose experts live in a store: y[t] = sum over ranks r of weight(t, r) * expert(t, r)(x[t]).
/// Groups tokens by expert, leases wave after wave, runs the experts, combines in rank order. Bytes of `y` depend on
/// x, routing and weights alone (and the processor's instruction set), never on residency, waves or threads.
/// T is the type of the weights; x and y are float. Records are laid out by `ExpertLayout`. Thread-compatible; the
/// store is shared. With `Where` = Tier::device, all calls return Errc::device: that layer is `cuda::MoeLayer`.
template <WeightElement T, Tier Where, Router R>
class MoeLayer {
 public:
  /// @return invalid_argument or unsupported, with the reason.
  static Status can_implement(MoeShape const& shape) {
    if constexpr (Where != Tier::host) return no_device();
    return detail::can_implement(shape, dtype_of<T>);
  }

  /// `store` must outlive the layer.
  MoeLayer(MoeShape const& shape, ExpertStore& store, R router, CpuIsa isa = best_cpu_isa())
      : shape_(shape), store_(&store), router_(std::move(router)), isa_(isa) {}

  /// As `moe_workspace_bytes`.
  std::size_t workspace_bytes(std::int64_t tokens) const noexcept { return moe_workspace_bytes(shape_, tokens); }

  /// Routing of `logits` [tokens, experts] into `routing` [tokens, k].
  Status route(Matrix<float const, Where> logits, TokenLayout const& layout, Routing<Where> routing) const {
    if constexpr (Where != Tier::host) {
      return no_device();
    } else {
      return router_.route(logits, layout, routing);
    }
  }

  /// Runs the routed experts. x, y: [tokens, d_model], no aliasing. Blocks while experts are loaded.
  /// @return invalid_argument (shapes, ids, workspace, a store with smaller records), and what the store returns; on
  /// failure `y` is unspecified.
  Status apply(Matrix<float const, Where> x, Routing<Where> routing, Matrix<float, Where> y,
               MoeContext const& context) {
    if constexpr (Where != Tier::host) {
      return no_device();
    } else {
      detail::StoreExperts experts(*store_, context.stream, context.position);
      return detail::moe_apply_host({shape_, dtype_of<T>, isa_, x, routing, y, context.pool, context.workspace},
                                    experts);
    }
  }

  MoeShape const& shape() const noexcept { return shape_; }

 private:
  static Status no_device() {
    return {Errc::device, "MoE layer on a device: that is sida::cuda::MoeLayer, of sida/cuda/moe_layer.hpp"};
  }

  MoeShape shape_;
  ExpertStore* store_;
  R router_;
  CpuIsa isa_;
};

/// What MoeLayer::apply computes, by the same code, over experts that are all in host memory at `records`
/// [shape.experts], each laid out by `ExpertLayout`: the layer without a store, to compare with.
/// Uses pool and workspace (`moe_workspace_bytes`) of the context only; a record that the routing does not name may be
/// null.
SIDA_API Status moe_over_arrays(MoeShape const& shape, Dtype dtype, CpuIsa isa,
                                std::span<std::byte const* const> records, Matrix<float const> x, Routing<> routing,
                                Matrix<float> y, MoeContext const& context);

}  // namespace sida::inline v0
