#pragma once

#include <cstdint>
#include <vector>

#include "dense/linear.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/io/tensor_source.hpp"

namespace sida::inline v0::predict_detail {

struct LinearWeights {
  dense::WeightMatrix weight;   // [out, in]
  float const* bias = nullptr;  // [out]
};

/// Gates i, f, g, o one after the other.
struct LstmLayerWeights {
  dense::WeightMatrix input;              // [4 * hidden, in]
  dense::WeightMatrix recurrent;          // [4 * hidden, hidden]
  float const* input_bias = nullptr;      // [4 * hidden]
  float const* recurrent_bias = nullptr;  // [4 * hidden]
};

struct LstmHashWeights {
  LinearWeights compression;  // [hidden, d_model]
  LstmLayerWeights lstm[2];
  LinearWeights residual;            // [hidden, hidden]
  std::vector<LinearWeights> heads;  // one per MoE layer: [experts, hidden]
  Buffer arena;                      // what all of the above point into

  std::int64_t d_model() const noexcept { return compression.weight.cols; }
  std::int64_t hidden() const noexcept { return compression.weight.rows; }
  std::int64_t experts() const noexcept { return heads.front().weight.rows; }
};

/// @return as LstmHash::load.
Result<LstmHashWeights> load_lstm_hash_weights(TensorSource const& source, MemoryResource& memory);

}  // namespace sida::inline v0::predict_detail
