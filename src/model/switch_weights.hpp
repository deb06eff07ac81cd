#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dense/linear.hpp"
#include "model/switch_tensors.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/model/switch_config.hpp"

/// The dense weights of a Switch encoder in memory. Internal.
namespace sida::inline v0::model_detail {

using dense::WeightMatrix;

struct SwitchBlockWeights {
  float const* attention_norm = nullptr;  // [d_model]
  WeightMatrix q, k, v;                   // [inner, d_model]
  WeightMatrix o;                         // [d_model, inner]
  float const* ffn_norm = nullptr;        // [d_model]
  WeightMatrix wi;                        // [d_ff, d_model], of dense blocks
  WeightMatrix wo;                        // [d_model, d_ff], of dense blocks
  WeightMatrix router;                    // [experts, d_model], of sparse blocks
};

struct SwitchWeights {
  WeightMatrix embedding;                          // [vocab, d_model]
  float const* position_bias = nullptr;            // [buckets, heads], added to a score
  std::int32_t const* position_buckets = nullptr;  // [max_distance + 1], of a key so far before its query
  std::vector<SwitchBlockWeights> blocks;
  float const* final_norm = nullptr;       // [d_model]
  WeightMatrix head_dense;                 // [d_model, d_model]; no rows without a head
  float const* head_dense_bias = nullptr;  // [d_model]
  WeightMatrix head_out;                   // [labels, d_model]
  float const* head_out_bias = nullptr;    // [labels]
  Buffer arena;                            // what all of the above point into

  /// The same without the arena.
  SwitchWeights view() const {
    return {embedding,  position_bias,   position_buckets, blocks,        final_norm,
            head_dense, head_dense_bias, head_out,         head_out_bias, Buffer()};
  }
  bool has_head() const noexcept { return head_dense.rows > 0; }
};

/// Reads `tensors` of `source`, one after the other, each straight into its place in one block of `memory`.
/// @return io, corrupt; out_of_memory, naming the source.
Result<SwitchWeights> load_switch_weights(SwitchConfig const& config, SwitchTensors const& tensors,
                                          TensorSource const& source, MemoryResource& memory);

/// T5's bucket of `distance` = key position - query position, for an encoder, as transformers 5.24 computes it: with
/// logarithms in float32, since in float64 some distances land in other buckets. PyTorch's own float32 logarithm is not
/// always rounded correctly, as this one is: of all settings with 4 to 64 buckets and a distance up to 300, four odd
/// ones, such as 34 buckets up to distance 27, have a distance whose bucket differs from PyTorch's (by one).
std::int64_t relative_position_bucket(std::int64_t distance, std::int64_t buckets, std::int64_t max_distance) noexcept;

}  // namespace sida::inline v0::model_detail
