#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "sida/core/matrix.hpp"

namespace sida::inline v0 {

/// In a routing: this token goes to no expert at this rank (padding, or over an expert's capacity).
inline constexpr std::uint16_t kNoExpert = std::numeric_limits<std::uint16_t>::max();

/// Non-owning: for each token its top-k experts and their weights alpha, most likely first, [tokens, k] each.
/// Where expert is kNoExpert, a non-zero weight passes the token's input through, weighted (Switch in
/// transformers 4.32 to 4.40); else the weight is 0.
template <Tier Where = Tier::host>
struct Routing {
  Matrix<std::uint16_t, Where> experts;  // [tokens, k]
  Matrix<float, Where> weights;          // [tokens, k]
  std::int64_t tokens() const noexcept { return experts.rows; }
  std::int64_t k() const noexcept { return experts.cols; }
};

/// Owns a routing in host memory. Grows, never shrinks.
class HostRouting {
 public:
  void resize(std::int64_t tokens, std::int64_t k) {
    tokens_ = tokens;
    k_ = k;
    auto const size = static_cast<std::size_t>(tokens * k);
    if (experts_.size() < size) {
      experts_.resize(size);
      weights_.resize(size);
    }
  }
  Routing<> view() noexcept { return {{experts_.data(), tokens_, k_}, {weights_.data(), tokens_, k_}}; }

 private:
  std::vector<std::uint16_t> experts_;
  std::vector<float> weights_;
  std::int64_t tokens_ = 0;
  std::int64_t k_ = 0;
};

/// How the tokens of a batch divide into sequences. Sequences stand one after the other; engines that pad mark
/// padding in `real`.
struct TokenLayout {
  /// [sequences + 1], from 0 to the number of tokens.
  std::span<std::uint32_t const> sequence_offsets;
  /// [tokens]: 0 for padding, which is never routed; empty when all tokens are real.
  std::span<std::uint8_t const> real = {};
  bool is_real(std::int64_t token) const noexcept { return real.empty() || real[static_cast<std::size_t>(token)] != 0; }
};

}  // namespace sida::inline v0
