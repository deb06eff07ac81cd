#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/switch_compute.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/workspace.hpp"
#include "sida/model/switch_config.hpp"

namespace sida::inline v0::model_detail {

struct HostSwitchBuffers final : SwitchBuffers {
  // Through the whole batch.
  Matrix<float> residual;     // [tokens, d_model]
  Matrix<float> normed;       // [tokens, d_model], input of what comes next; in the end the output
  Matrix<float> means;        // [sequences, d_model]
  Matrix<float> head_hidden;  // [sequences, d_model]
  Matrix<float> head_out;     // [sequences, labels]
  std::byte* packed;          // room for what products read packed, [tokens, d_model] or [tokens, inner]
  // Of one kind of step each: the three share their memory.
  Matrix<float> q, k, v, context;  // [tokens, inner], attention
  Matrix<float> inner;             // [tokens, d_ff], dense blocks
  std::byte* packed_inner;         // room for the same packed
  Matrix<float> router_logits;     // [tokens, experts], MoE layers
  Matrix<float> moe_out;           // [tokens, d_model], MoE layers
  std::span<std::byte> moe_workspace;

  /// Makes room for a batch. @return out_of_memory.
  Status reserve(SwitchConfig const& config, SwitchBatch const& batch, std::size_t moe_workspace_bytes,
                 MemoryResource& memory);
  /// At least `floats` floats of attention scratch, or out_of_memory.
  Result<float*> reserve_scratch(std::int64_t floats, MemoryResource& memory);

 private:
  std::size_t carve(SwitchConfig const& config, SwitchBatch const& batch, std::size_t moe_workspace_bytes,
                    Workspace place);

  Buffer buffer_;   // of all matrices
  Buffer scratch_;  // of attention
};

}  // namespace sida::inline v0::model_detail
