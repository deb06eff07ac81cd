#pragma once

#include <cstdint>

#include "sida/core/api.hpp"
#include "sida/core/result.hpp"
#include "sida/route/activation_plan.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::inline v0 {

/// A batch's plan as its store knows it: one event per MoE layer. What is left of it is forgotten when this is
/// destroyed, so that a batch which never runs holds nothing in the store. Move-only; must not outlive the store.
class SIDA_API SubmittedPlan {
 public:
  /// Nothing is planned.
  SubmittedPlan() noexcept = default;
  /// Announces `plan`'s expert sets. An empty plan submits nothing. Thread-safe.
  /// @return invalid_argument for an expert that the store doesn't have.
  static Result<SubmittedPlan> submit(ExpertStore& store, ActivationPlan const& plan);

  SubmittedPlan(SubmittedPlan&& other) noexcept;
  SubmittedPlan& operator=(SubmittedPlan&& other) noexcept;
  ~SubmittedPlan();

  /// Where the step of MoE layer `layer` stands in the plan.
  PlanPosition at(std::uint32_t layer) const noexcept {
    return id_ == PlanId::none ? PlanPosition{} : PlanPosition{id_, layer};
  }

 private:
  ExpertStore* store_ = nullptr;
  PlanId id_ = PlanId::none;
};

}  // namespace sida::inline v0
