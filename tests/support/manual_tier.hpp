#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "sida/core/memory.hpp"
#include "sida/store/fast_tier.hpp"

namespace sida::test {

/// What a test sees of a `ManualTier`, also after the store took the tier.
class ManualFills {
 public:
  /// Fills submitted and not released, in the order of submission.
  std::vector<FillRequest> pending() const {
    std::lock_guard const lock(mutex_);
    return pending_;
  }
  /// Waits until `count` fills are pending.
  void wait_for(std::size_t count) const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return pending_.size() >= count; });
  }
  /// Completes the fill of `expert`: reads the record and reports, or reports `failure`. False when none is pending.
  bool release(ExpertId expert, std::optional<Error> failure = std::nullopt) {
    FillRequest request;
    {
      std::lock_guard const lock(mutex_);
      auto const found =
          std::find_if(pending_.begin(), pending_.end(), [&](auto const& fill) { return fill.expert == expert; });
      if (found == pending_.end()) return false;
      request = *found;
      pending_.erase(found);
    }
    complete(request, std::move(failure));
    return true;
  }
  bool release_next() {
    auto const fills = pending();
    return !fills.empty() && release(fills.front().expert);
  }

 private:
  friend class ManualTier;
  void complete(FillRequest const& request, std::optional<Error> failure) {
    Status status;
    if (failure) {
      status = *std::move(failure);
    } else {
      auto const bytes = arena_.bytes();
      status = source_->read(request.expert,
                             bytes.subspan(static_cast<std::uint32_t>(request.slot) * slot_bytes_, slot_bytes_));
    }
    listener_->on_filled(request.ticket, std::move(status));
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<FillRequest> pending_;
  std::shared_ptr<ExpertSource const> source_;
  HostMemory memory_;
  Buffer arena_;
  std::size_t slot_bytes_ = 0;
  FillListener* listener_ = nullptr;
};

/// A fast tier whose fills end when the test says so, in the order that the test likes.
class ManualTier final : public FastTier {
 public:
  explicit ManualTier(std::shared_ptr<ExpertSource const> source) : fills_(std::make_shared<ManualFills>()) {
    fills_->source_ = std::move(source);
  }
  ~ManualTier() override { close(); }
  std::shared_ptr<ManualFills> fills() const { return fills_; }

  /// Lets a thread release pending fills in random order by itself, as fast as they come.
  void release_at_random(std::uint64_t seed) {
    releaser_ = std::jthread([fills = fills_, seed](std::stop_token const& stop) {
      std::mt19937_64 random(seed);
      while (!stop.stop_requested()) {
        auto const pending = fills->pending();
        if (pending.empty()) {
          std::this_thread::yield();
          continue;
        }
        fills->release(pending[random() % pending.size()].expert);
      }
    });
  }

  Tier space() const noexcept override { return Tier::host; }
  Status open(std::uint32_t slots, std::size_t slot_bytes, FillListener& listener) override {
    auto arena = Buffer::allocate(fills_->memory_, slots * slot_bytes, 4096);
    if (!arena) return std::move(arena).error();
    fills_->arena_ = *std::move(arena);
    fills_->slot_bytes_ = slot_bytes;
    fills_->listener_ = &listener;
    return {};
  }
  std::byte const* slot_data(SlotId slot) const noexcept override {
    return fills_->arena_.bytes().data() + static_cast<std::uint32_t>(slot) * fills_->slot_bytes_;
  }
  void submit(FillRequest const& request) override {
    {
      std::lock_guard const lock(fills_->mutex_);
      fills_->pending_.push_back(request);
    }
    fills_->changed_.notify_all();
  }
  Status order_reader(std::span<LeasedExpert const>, StreamRef) override { return {}; }
  void release(std::span<LeasedExpert const>, StreamRef) noexcept override {}
  void close() noexcept override {
    releaser_ = {};
    for (auto const& request : fills_->pending()) fills_->release(request.expert, Error(Errc::cancelled, "closed"));
  }

 private:
  std::shared_ptr<ManualFills> fills_;
  std::jthread releaser_;
};

}  // namespace sida::test
