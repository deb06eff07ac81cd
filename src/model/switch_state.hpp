#pragma once

#include <cstdint>

#include "model/switch_compute.hpp"
#include "sida/core/result.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/route/token_batch.hpp"

namespace sida::inline v0 {

struct SwitchEncoder::State::Impl {
  /// Which step is next.
  enum class Turn : std::uint8_t {
    none,    // no batch
    run_to,  // MoE layer `layer`, or `finish` when there are no more
    moe,     // route or run_moe of MoE layer `layer`
    done,    // outputs are there
  };

  std::uint64_t owner = 0;  // number of the encoder that began the batch
  Turn turn = Turn::none;
  bool is_fresh = false;    // nothing was run since `begin`
  std::uint32_t layer = 0;  // MoE layer that is next
  model_detail::SwitchBatch batch;
};

namespace model_detail {

/// @return invalid_argument for a batch that an encoder with `vocab_size` ids cannot take.
Status check_batch(TokenBatch const& batch, std::int64_t vocab_size);

}  // namespace model_detail
}  // namespace sida::inline v0
