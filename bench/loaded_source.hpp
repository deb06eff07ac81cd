#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/io/expert_source.hpp"

namespace sida::bench {

/// All experts of another source, read once into memory, so that only a `SlowDisk` decides how long a read takes.
class LoadedSource final : public ExpertSource {
 public:
  /// @return what `experts` returns; out_of_memory.
  static Result<std::shared_ptr<LoadedSource const>> of(ExpertSource const& experts);

  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return experts_per_layer_; }
  std::size_t record_bytes(ExpertId id) const noexcept override { return records_[id.layer][id.expert].bytes; }
  Status read(ExpertId id, std::span<std::byte> dst) const override;

 private:
  struct Record {
    std::size_t bytes = 0;
    Buffer data;  // a slot's worth
  };
  HostMemory memory_;  // before what is in it
  std::vector<std::uint32_t> experts_per_layer_;
  std::vector<std::vector<Record>> records_;  // by layer and expert
};

}  // namespace sida::bench
