#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// Hyperparameters of a Switch Transformers encoder, as Hugging Face's config.json holds them. The defaults are those
/// of `SwitchTransformersConfig` in transformers 5.24.
struct SwitchConfig {
  std::int64_t vocab_size = 32128;
  std::int64_t d_model = 768;
  std::int64_t d_kv = 64;  ///< of one attention head; num_heads * d_kv may differ from d_model
  std::int64_t d_ff = 2048;
  std::int64_t num_heads = 12;
  std::uint32_t num_layers = 12;
  std::uint32_t num_experts = 8;      ///< of each sparse block
  std::int64_t expert_capacity = 64;  ///< tokens of one sequence that one expert takes
  /// "encoder_sparse_step", or what transformers derives from num_sparse_encoder_layers in its absence; 0 = no block is
  /// sparse. See `is_sparse`.
  std::uint32_t encoder_sparse_step = 4;
  std::int64_t relative_attention_num_buckets = 32;
  std::int64_t relative_attention_max_distance = 128;
  float layer_norm_epsilon = 1e-6F;
  FfnKind activation = FfnKind::relu;  ///< relu or gelu, of dense blocks and experts
  std::int64_t num_labels = 2;         ///< of the classification head, which may be absent
  std::int32_t pad_token_id = 0;
  std::int32_t eos_token_id = 1;
  /// "dtype", or "torch_dtype" of older files. What the file says: the tensors' own types decide.
  std::optional<Dtype> dtype;

  /// Whether block `block` holds experts: every step-th block from block 1 on, or each one when the step is 1.
  bool is_sparse(std::uint32_t block) const noexcept {
    return encoder_sparse_step == 1 || (encoder_sparse_step > 1 && block % encoder_sparse_step == 1);
  }
  /// Sparse blocks, that is MoE layers, of the encoder.
  SIDA_API std::uint32_t moe_layers() const noexcept;
  /// Width of the queries of all heads.
  std::int64_t inner_dim() const noexcept { return num_heads * d_kv; }

  friend bool operator==(SwitchConfig const&, SwitchConfig const&) = default;
};

/// Parses the text of a config.json. "model_type" must be there and be "switch_transformers"; every other key may be
/// absent. Numbers must be integers where transformers wants integers, and within the limits of sida.
/// `name` is the file, for messages, which name the key too.
/// @return corrupt: not JSON, a missing or mistyped or senseless value; unsupported: well-formed, but a variant that
/// sida does not compute (gated activations, a router with bias, a router below float32, more than one expert a token).
SIDA_API Result<SwitchConfig> parse_switch_config(std::string_view json, std::string_view name);

}  // namespace sida::inline v0
