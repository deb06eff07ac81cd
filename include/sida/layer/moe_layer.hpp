#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/core/stream.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/core/workspace.hpp"
#include "sida/kernels/cpu.hpp"
#include "sida/route/router.hpp"
#include "sida/route/routing.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0 {

/// One MoE layer of a model.
struct MoeShape {
  std::uint32_t layer = 0;    ///< MoE layer, counted from 0
  std::uint32_t experts = 0;  ///< of this layer
  std::int64_t k = 1;         ///< experts per token
  FfnKind kind = FfnKind::relu;
  std::int64_t d_model = 0;
  std::int64_t d_ff = 0;
};

/// What the caller lends for one step.
struct MoeContext {
  ThreadPool& pool;
  std::span<std::byte> workspace;  ///< at least `workspace_bytes(tokens)`, aligned to 64
  StreamRef stream = StreamRef::host();
  PlanPosition position = {};  ///< where this step stands in a submitted plan
};

/// An MoE layer whose experts live in a store: y[t] = sum over ranks r of weight(t, r) * expert(t, r)(x[t]).
/// Groups tokens by expert, leases wave after wave, runs the experts, combines in rank order. Bytes of `y` depend on
/// x, routing and weights alone (and the processor's instruction set), never on residency, waves or threads.
/// T is the type of the weights: float, bf16 or fp16; x and y are float. Thread-compatible; the store is shared.
template <class T, Tier Where, Router R>
class MoeLayer {
 public:
  /// @return invalid_argument or unsupported, with the reason.
  static Status can_implement(MoeShape const& shape);

  /// `store` must outlive the layer.
  MoeLayer(MoeShape const& shape, ExpertStore& store, R router, CpuIsa isa = best_cpu_isa());

  std::size_t workspace_bytes(std::int64_t tokens) const noexcept;

  /// Routing of `logits` [tokens, experts] into `routing` [tokens, k].
  Status route(Matrix<float const, Where> logits, TokenLayout const& layout, Routing<Where> routing) const {
    return router_.route(logits, layout, routing);
  }

  /// Runs the routed experts. x, y: [tokens, d_model], no aliasing. Blocks while experts are loaded.
  /// @return invalid_argument (shapes, ids, workspace), and what the store returns; on failure `y` is unspecified.
  Status apply(Matrix<float const, Where> x, Routing<Where> routing, Matrix<float, Where> y, MoeContext const& context);

  MoeShape const& shape() const noexcept { return shape_; }

 private:
  MoeShape shape_;
  ExpertStore* store_;
  R router_;
  CpuIsa isa_;
};

}  // namespace sida::inline v0
