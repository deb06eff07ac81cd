#pragma once

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "sida/store/fast_tier.hpp"

namespace sida::inline v0 {

/// Fills that a tier has not started: demands before prefetches, each in the order of submission. Not thread-safe.
/// Inline: tiers of several libraries share it.
class FillQueue {
 public:
  void push(FillRequest const& request) {
    (request.urgency == FillUrgency::demand ? demands_ : prefetches_).push_back(request);
  }
  /// Makes a demand of a prefetch, the last in line. Nothing happens to one that is under way.
  void promote(FillTicket ticket) {
    auto const found = std::ranges::find(prefetches_, ticket, &FillRequest::ticket);
    if (found == prefetches_.end()) return;
    demands_.push_back(*found);
    demands_.back().urgency = FillUrgency::demand;
    prefetches_.erase(found);
  }
  bool has_demand() const noexcept { return !demands_.empty(); }
  bool has_prefetch() const noexcept { return !prefetches_.empty(); }
  /// Precondition: there is one.
  FillRequest pop() {
    auto& queue = has_demand() ? demands_ : prefetches_;
    FillRequest const request = queue.front();
    queue.pop_front();
    return request;
  }
  /// Tells `listener` that what is left was cancelled. Takes no memory.
  void abandon(FillListener& listener) {
    while (has_demand() || has_prefetch()) listener.on_filled(pop().ticket, Status(Errc::cancelled, "closed"));
  }

 private:
  std::deque<FillRequest> demands_;
  std::deque<FillRequest> prefetches_;
};

}  // namespace sida::inline v0
