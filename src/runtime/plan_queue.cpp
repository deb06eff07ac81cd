#include "sida/runtime/plan_queue.hpp"

#include <utility>
#include <vector>

#include "sida/detail/try.hpp"

namespace sida::inline v0 {

Result<SubmittedPlan> SubmittedPlan::submit(ExpertStore& store, ActivationPlan const& plan) {
  SubmittedPlan submitted;
  if (plan.empty()) return submitted;
  std::vector<std::vector<ExpertId>> events;
  events.reserve(plan.layers.size());
  for (auto const& layer : plan.layers) events.push_back(layer.expert_set);
  SIDA_TRY_ASSIGN(submitted.id_, store.submit_plan(events));
  submitted.store_ = &store;
  return submitted;
}

SubmittedPlan::SubmittedPlan(SubmittedPlan&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), id_(std::exchange(other.id_, PlanId::none)) {}

SubmittedPlan& SubmittedPlan::operator=(SubmittedPlan&& other) noexcept {
  SubmittedPlan moved(std::move(other));
  std::swap(store_, moved.store_);
  std::swap(id_, moved.id_);
  return *this;
}

SubmittedPlan::~SubmittedPlan() {
  if (store_ != nullptr) store_->drop_plan(id_);
}

}  // namespace sida::inline v0
