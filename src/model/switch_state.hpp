#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sida/core/matrix.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/workspace.hpp"
#include "sida/model/switch_encoder.hpp"
#include "sida/route/routing.hpp"
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

  void const* owner = nullptr;  // the encoder that began the batch
  Turn turn = Turn::none;
  bool is_fresh = false;               // nothing was run since `begin`
  std::uint32_t layer = 0;             // MoE layer that is next
  std::uint32_t block = 0;             // block that is next; the sparse one itself while its MoE layer is next
  std::vector<std::uint32_t> offsets;  // [sequences + 1]
  std::int64_t tokens = 0;
  std::int64_t longest = 0;  // tokens of the longest sequence
  HostRouting routing;       // [tokens, experts_per_token]

  // Through the whole batch.
  Matrix<float> hidden;       // [tokens, d_model], the residual stream
  Matrix<float> normed;       // [tokens, d_model], input of what comes next; after `finish` the output
  Matrix<float> pooled;       // [sequences, d_model]
  Matrix<float> head_hidden;  // [sequences, d_model]
  Matrix<float> logits;       // [sequences, labels]
  // Of one kind of step each: the three share their memory.
  Matrix<float> q, k, v, context;  // [tokens, inner], attention
  Matrix<float> inner;             // [tokens, d_ff], dense blocks
  Matrix<float> router_logits;     // [tokens, experts], MoE layers
  Matrix<float> moe_out;           // [tokens, d_model], MoE layers
  std::span<std::byte> moe_workspace;

  std::int64_t sequences() const noexcept { return static_cast<std::int64_t>(offsets.size()) - 1; }

  /// Makes room for the batch whose `offsets` are set. @return out_of_memory.
  Status reserve(SwitchConfig const& config, std::int64_t experts_per_token, std::size_t moe_workspace_bytes,
                 MemoryResource& memory);
  /// At least `floats` floats of attention scratch, or out_of_memory.
  Result<float*> reserve_scratch(std::int64_t floats, MemoryResource& memory);

 private:
  std::size_t carve(SwitchConfig const& config, std::size_t moe_workspace_bytes, Workspace place);

  Buffer buffer_;   // of all matrices
  Buffer scratch_;  // of attention
};

namespace model_detail {

/// @return invalid_argument for a batch that an encoder with `vocab_size` ids cannot take.
Status check_batch(TokenBatch const& batch, std::int64_t vocab_size);

}  // namespace model_detail
}  // namespace sida::inline v0
