#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/switch_compute.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/workspace.hpp"
#include "sida/cuda/gemm.hpp"
#include "sida/cuda/switch_encoder.hpp"

namespace sida::inline v0::model_detail {

/// Activations as operands of a product: rounded to the weights' type, rows at multiples of 16 bytes.
struct Narrow {
  std::byte* data = nullptr;
  std::int64_t cols = 0;
};

/// What the matrices of a batch are sized by.
struct DeviceSwitchSizes {
  std::size_t moe_workspace_bytes = 0;
  std::size_t moe_pinned_bytes = 0;  // of one MoE layer
  std::uint32_t moe_layers = 0;
  bool outputs_hidden = true;
};

/// Device memory where not said otherwise.
struct DeviceSwitchBuffers final : SwitchBuffers {
  explicit DeviceSwitchBuffers(cuda::SwitchResources const& lent) : resources(lent) {}
  ~DeviceSwitchBuffers() override { wait(); }

  cuda::SwitchResources resources;
  std::optional<cuda::Gemm> gemm;
  bool is_running = false;  // work of a batch may be under way

  std::int32_t* ids = nullptr;       // [tokens]
  std::uint32_t* offsets = nullptr;  // [sequences + 1]
  float* residual = nullptr;         // [tokens, d_model]
  float* normed = nullptr;           // [tokens, d_model]
  Narrow narrow;                     // [tokens, d_model], `normed` or a mean, rounded
  float* means = nullptr;            // [sequences, d_model]
  float* head_hidden = nullptr;      // [sequences, d_model]
  float* head_out = nullptr;         // [sequences, labels]
  // Of one kind of step each: the three share their memory.
  float *q = nullptr, *k = nullptr, *v = nullptr;  // [tokens, inner], attention
  Narrow context;                                  // [tokens, inner], attention
  float* wide = nullptr;                           // [tokens, d_ff], dense blocks
  Narrow inner;                                    // [tokens, d_ff], dense blocks
  float* router_logits = nullptr;                  // [tokens, experts], MoE layers
  std::span<std::byte> moe_workspace;

  // Pinned host memory.
  std::int32_t* ids_there = nullptr;
  std::uint32_t* offsets_there = nullptr;
  float* hidden_there = nullptr;                 // [tokens, d_model], if wanted
  float* pooled_there = nullptr;                 // [sequences, d_model]
  float* logits_there = nullptr;                 // [sequences, labels]
  std::vector<std::span<std::byte>> moe_pinned;  // of each MoE layer

  std::vector<float> embeddings_there;  // host memory, on demand

  /// Makes room for a batch. @return out_of_memory.
  Status reserve(SwitchConfig const& config, SwitchBatch const& batch, DeviceSwitchSizes const& sizes);
  /// Nothing of these buffers is in use afterwards.
  void wait() noexcept;

 private:
  std::size_t carve_device(SwitchConfig const& config, SwitchBatch const& batch, DeviceSwitchSizes const& sizes,
                           Workspace place);
  std::size_t carve_pinned(SwitchConfig const& config, SwitchBatch const& batch, DeviceSwitchSizes const& sizes,
                           Workspace place);

  Buffer gemm_workspace_;
  Buffer device_;
  Buffer pinned_;
};

}  // namespace sida::inline v0::model_detail
