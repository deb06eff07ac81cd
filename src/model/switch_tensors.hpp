#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sida/core/result.hpp"
#include "sida/io/safetensors.hpp"
#include "sida/io/tensor_source.hpp"
#include "sida/model/switch_config.hpp"

/// Which tensors of a checkpoint a Switch encoder is made of. Internal.
namespace sida::inline v0::model_detail {

/// Entries of `TensorSource::tensors()`; valid as long as the source.
struct SwitchBlockTensors {
  TensorInfo const* attention_norm = nullptr;  // [d_model]
  TensorInfo const* q = nullptr;               // [inner, d_model]
  TensorInfo const* k = nullptr;               // [inner, d_model]
  TensorInfo const* v = nullptr;               // [inner, d_model]
  TensorInfo const* o = nullptr;               // [d_model, inner]
  TensorInfo const* ffn_norm = nullptr;        // [d_model]
  TensorInfo const* wi = nullptr;              // [d_ff, d_model], of dense blocks
  TensorInfo const* wo = nullptr;              // [d_model, d_ff], of dense blocks
  TensorInfo const* router = nullptr;          // [experts, d_model], of sparse blocks
};

struct SwitchTensors {
  TensorInfo const* embedding = nullptr;      // [vocab, d_model]
  TensorInfo const* position_bias = nullptr;  // [buckets, heads]
  std::vector<SwitchBlockTensors> blocks;
  TensorInfo const* final_norm = nullptr;       // [d_model]
  TensorInfo const* head_dense = nullptr;       // [d_model, d_model]; the head is whole or absent
  TensorInfo const* head_dense_bias = nullptr;  // [d_model]
  TensorInfo const* head_out = nullptr;         // [labels, d_model]
  TensorInfo const* head_out_bias = nullptr;    // [labels]
  std::string prefix;                           // of the encoder's names: "" or "switch_transformers."
  std::vector<TensorInfo const*> all;           // the above, each once

  bool has_head() const noexcept { return head_dense != nullptr; }
  /// For a model whose routing is given: routers never run.
  void forget_routers() noexcept {
    for (auto& block : blocks) block.router = nullptr;
  }
};

/// Finds and checks the dense tensors. @return not_found (no such tensor), corrupt (another shape, naming both),
/// unsupported (an element type that sida does not compute with).
Result<SwitchTensors> find_switch_tensors(SwitchConfig const& config, TensorSource const& source);

/// `names[layer][expert]` of the encoder's experts. Each is looked up as it is made, so that names take no more memory
/// than those that the file holds, whatever the config says. @return not_found, naming the first that isn't there.
Result<std::vector<std::vector<ExpertTensorNames>>> find_expert_names(SwitchConfig const& config,
                                                                      std::string const& prefix,
                                                                      TensorSource const& source);

}  // namespace sida::inline v0::model_detail
