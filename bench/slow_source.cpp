#include "bench/slow_source.hpp"

#include <algorithm>
#include <thread>

namespace sida::bench {

void SlowDisk::set(DiskSpeed speed) {
  std::lock_guard const lock(mutex_);
  speed_ = speed;
  busy_until_ = {};
}

DiskSpeed SlowDisk::speed() const {
  std::lock_guard const lock(mutex_);
  return speed_;
}

SlowDisk::Clock::time_point SlowDisk::book(std::uint64_t bytes, Clock::time_point now) {
  std::lock_guard const lock(mutex_);
  if (speed_.bytes_per_s <= 0) return now;
  auto const transfer = std::chrono::duration<double>(static_cast<double>(bytes) / speed_.bytes_per_s);
  busy_until_ = std::max(now + speed_.latency, busy_until_) + std::chrono::duration_cast<Clock::duration>(transfer);
  return busy_until_;
}

Status SlowSource::read(ExpertId id, std::span<std::byte> dst) const {
  auto const done = disk_->book(experts_->record_bytes(id), SlowDisk::Clock::now());
  Status status = experts_->read(id, dst);
  std::this_thread::sleep_until(done);
  return status;
}

}  // namespace sida::bench
