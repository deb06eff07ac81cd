#pragma once

#include <cstddef>
#include <cstring>
#include <map>
#include <stop_token>
#include <utility>
#include <vector>

#include "sida/core/memory.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/detail/try.hpp"

namespace sida::test {

/// Host memory, zero at first, that can be looked at while somebody works in it. One thread.
class WatchedMemory final : public MemoryResource {
 public:
  Result<void*> allocate(std::size_t bytes, std::size_t alignment) override {
    SIDA_TRY_ASSIGN(void* const data, memory_.allocate(bytes, alignment));
    std::memset(data, 0, bytes);
    blocks_[static_cast<std::byte const*>(data)] = bytes;
    return data;
  }
  void deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept override {
    blocks_.erase(static_cast<std::byte const*>(data));
    memory_.deallocate(data, bytes, alignment);
  }
  Tier space() const noexcept override { return Tier::host; }

  /// A copy of all that is allocated.
  std::vector<std::byte> content() const {
    std::vector<std::byte> all;
    for (auto const& [data, bytes] : blocks_) all.insert(all.end(), data, data + bytes);
    return all;
  }

 private:
  HostMemory memory_;
  std::map<std::byte const*, std::size_t> blocks_;
};

/// Four threads' worth of tasks, all on the calling thread. Requests a stop at the beginning of its run number
/// `stops_at`, counted from 0, and counts the bytes of `memory` that each run changes: what is left out shows there.
class StopsAtRun final : public ThreadPool {
 public:
  StopsAtRun(WatchedMemory const& memory, std::stop_source stop, std::size_t stops_at)
      : memory_(memory), stop_(std::move(stop)), stops_at_(stops_at) {}

  std::size_t concurrency() const noexcept override { return 4; }
  void run(std::size_t tasks, TaskRef task) override {
    if (changed_bytes_.size() == stops_at_) stop_.request_stop();
    auto const before = memory_.content();
    for (std::size_t i = 0; i < tasks; ++i) task(i);
    auto const after = memory_.content();
    std::size_t changed = 0;
    for (std::size_t i = 0; i < after.size(); ++i) changed += before[i] != after[i] ? 1 : 0;
    changed_bytes_.push_back(changed);
  }
  /// Of each run so far.
  std::vector<std::size_t> const& changed_bytes() const noexcept { return changed_bytes_; }

 private:
  WatchedMemory const& memory_;
  std::stop_source stop_;
  std::size_t stops_at_;
  std::vector<std::size_t> changed_bytes_;
};

}  // namespace sida::test
