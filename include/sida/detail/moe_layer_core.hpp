#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/core/stream.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/kernels/cpu.hpp"
#include "sida/layer/moe_shape.hpp"
#include "sida/route/routing.hpp"
#include "sida/store/expert_store.hpp"

/// The compiled core under MoeLayer: the same code for every router, and with or without a store.
namespace sida::inline v0::detail {

/// Lends the records of one event's experts, some at a time.
class SIDA_API ExpertProvider {
 public:
  virtual ~ExpertProvider() = default;
  /// Room for one record; what is smaller than the layer's layout is refused.
  virtual std::size_t record_bytes() const noexcept = 0;
  /// experts: distinct, ascending, of one layer.
  virtual Status begin(std::span<ExpertId const> experts) = 0;
  /// The next experts of the event, ascending; none when all were served. Valid until the next call.
  virtual Result<std::span<LeasedExpert const>> next_wave() = 0;
  /// The wave is no longer read.
  virtual void release() noexcept = 0;
};

/// Experts leased from a store.
class SIDA_API StoreExperts final : public ExpertProvider {
 public:
  StoreExperts(ExpertStore& store, StreamRef reader, PlanPosition position) noexcept
      : store_(store), reader_(reader), position_(position) {}
  std::size_t record_bytes() const noexcept override { return store_.slot_bytes(); }
  Status begin(std::span<ExpertId const> experts) override;
  Result<std::span<LeasedExpert const>> next_wave() override;
  void release() noexcept override { wave_.release(); }

 private:
  ExpertStore& store_;
  StreamRef reader_;
  PlanPosition position_;
  std::optional<DemandEvent> event_;
  Wave wave_;
};

/// Everything that one step of one layer works on.
struct MoeStep {
  MoeShape const& shape;
  Dtype dtype;  // of the weights
  CpuIsa isa;
  Matrix<float const> x;  // [tokens, d_model]
  Routing<> routing;      // [tokens, k]
  Matrix<float> y;        // [tokens, d_model]
  ThreadPool& pool;
  std::span<std::byte> workspace;
};

SIDA_API Status can_implement(MoeShape const& shape, Dtype dtype);
/// @return what MoeLayer::apply returns.
SIDA_API Status moe_apply_host(MoeStep const& step, ExpertProvider& experts);

}  // namespace sida::inline v0::detail
