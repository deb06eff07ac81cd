#include "io/staging_pool.hpp"

#include <utility>

#include "sida/core/expert_layout.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::io_detail {

Result<StagingPool::Chunk> StagingPool::take() {
  std::unique_lock lock(mutex_);
  std::size_t index = 0;
  freed_.wait(lock, [&] {
    index = 0;
    while (index < kChunks && taken_[index]) ++index;
    return index < kChunks;
  });
  if (chunks_[index].size_bytes() == 0) {
    SIDA_TRY_ASSIGN(chunks_[index], Buffer::allocate(memory_, kChunkBytes, kRecordAlignment, "staging for reads"));
    allocated_bytes_ += kChunkBytes;
  }
  taken_[index] = true;
  return Chunk(this, index);
}

void StagingPool::give_back(std::size_t index) noexcept {
  {
    std::lock_guard const lock(mutex_);
    taken_[index] = false;
  }
  freed_.notify_one();
}

std::uint64_t StagingPool::allocated_bytes() const noexcept {
  std::lock_guard const lock(mutex_);
  return allocated_bytes_;
}

}  // namespace sida::inline v0::io_detail
