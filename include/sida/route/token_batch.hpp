#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sida::inline v0 {

/// Token ids of some sequences, one after the other and without padding.
struct TokenBatch {
  std::uint64_t number = 0;                           ///< of this batch in its run, from 0
  std::vector<std::int32_t> ids;                      ///< [tokens]
  std::vector<std::uint32_t> sequence_offsets = {0};  ///< [sequences + 1]

  std::int64_t tokens() const noexcept { return static_cast<std::int64_t>(ids.size()); }
  std::int64_t sequences() const noexcept { return static_cast<std::int64_t>(sequence_offsets.size()) - 1; }
  void append(std::span<std::int32_t const> sequence) {
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    sequence_offsets.push_back(static_cast<std::uint32_t>(ids.size()));
  }
};

}  // namespace sida::inline v0
