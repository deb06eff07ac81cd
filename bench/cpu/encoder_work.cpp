#include "bench/cpu/encoder_work.hpp"

#include <algorithm>

namespace sida::bench {
namespace {

/// A product with a matrix of n by k weights, for `rows` rows.
Work product(double rows, std::int64_t n, std::int64_t k, Dtype dtype) {
  double const weights = static_cast<double>(n) * static_cast<double>(k);
  return {weights * static_cast<double>(size_bytes(dtype)), 2 * rows * weights, 0};
}
Work float_product(double rows, std::int64_t n, std::int64_t k, Dtype dtype) {
  Work const work = product(rows, n, k, dtype);
  return {work.bytes, 0, work.flops};
}

Work operator+(Work const& a, Work const& b) {
  return {a.bytes + b.bytes, a.flops + b.flops, a.float_flops + b.float_flops};
}
Work operator*(double times, Work const& work) {
  return {times * work.bytes, times * work.flops, times * work.float_flops};
}

}  // namespace

double Ceilings::bound_s(Work const& work) const {
  return std::max(work.bytes / bytes, work.flops / flops + work.float_flops / float_flops);
}

Work attention_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch) {
  Work const projections = 4 * product(batch.tokens, config.inner_dim(), config.d_model, dtype);
  // Scores, and the mean of values by them: two products of each pair of tokens for each head.
  return projections + Work{0, 0, 4 * batch.squares * static_cast<double>(config.inner_dim())};
}

Work dense_ffn_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch) {
  return 2 * product(batch.tokens, config.d_ff, config.d_model, dtype);
}

Work router_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch) {
  return float_product(batch.tokens, config.num_experts, config.d_model, dtype);
}

Work experts_work(SwitchConfig const& config, Dtype dtype, double tokens, double experts) {
  Work const one = product(1, config.d_ff, config.d_model, dtype);
  return {2 * experts * one.bytes, 2 * tokens * one.flops, 0};
}

Work head_work(SwitchConfig const& config, Dtype dtype, BatchSize const& batch) {
  return float_product(batch.sequences, config.d_model, config.d_model, dtype) +
         float_product(batch.sequences, config.num_labels, config.d_model, dtype);
}

}  // namespace sida::bench
