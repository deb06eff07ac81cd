#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sida/core/dtype.hpp"
#include "sida/model/switch_config.hpp"

namespace sida::bench {

/// What a step has to do at least: weights that it reads once, and floating-point operations.
struct Work {
  double bytes = 0;
  double flops = 0;        ///< of products with weights of the experts' type
  double float_flops = 0;  ///< of those that are in float32 whatever that type
};

/// What a machine can do, a second.
struct Ceilings {
  double bytes = 0;  ///< from memory: more, where weights stay in a cache
  double flops = 0;
  double float_flops = 0;

  /// A step is as slow as the slower of reading and computing. @return seconds.
  double bound_s(Work const& work) const;
};

/// A batch, as far as work depends on it.
struct BatchSize {
  double tokens = 0;
  double squares = 0;  ///< of the sequences' tokens, summed: scores of attention
  double sequences = 0;
};

// The work of the parts of an encoder, whose weights are of type `dtype`. Of activations nothing is counted: they are
// small, and stay in caches.
Work attention_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch);
Work dense_ffn_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch);
Work router_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch);
/// `tokens` of them go to `experts` different experts.
Work experts_work(SwitchConfig const& config, Dtype dtype, double tokens, double experts);
Work head_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch);

}  // namespace sida::bench
