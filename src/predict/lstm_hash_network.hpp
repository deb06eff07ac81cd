#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "predict/lstm_hash_weights.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/core/workspace.hpp"
#include "sida/kernels/cpu.hpp"
#include "sida/predict/lstm_hash.hpp"

namespace sida::inline v0::predict_detail {

/// One forward pass of the hash function over some sequences, which stand one after the other.
class LstmHashPass {
 public:
  struct Sequence {
    std::int64_t first = 0;  // token
    std::int64_t length = 0;
  };

  /// All arguments must outlive the pass. `embeddings`: [tokens, d_model] in parts that follow each other.
  LstmHashPass(LstmHashWeights const& weights, SparsemaxRule rule, CpuIsa isa, ThreadPool& pool, std::stop_token stop)
      : weights_(weights), rule_(rule), isa_(isa), pool_(pool), stop_(std::move(stop)) {}

  /// Afterwards `logits` are there. @return out_of_memory; cancelled.
  Status run(std::span<Matrix<float const> const> embeddings, std::span<Sequence const> sequences,
             MemoryResource& memory);
  /// [tokens, experts] of one MoE layer.
  Matrix<float const> logits(std::size_t layer) const noexcept { return logits_[layer]; }

 private:
  void share_out(std::span<Sequence const> sequences);
  void compress(std::span<Matrix<float const> const> embeddings);
  void lstm_layer(LstmLayerWeights const& layer, Matrix<float const> x, Matrix<float> h);
  void recur(LstmLayerWeights const& layer, std::span<Sequence const> group, Matrix<float> h, float* scratch) const;
  void attend();
  void attend_rows(Sequence const& sequence, std::int64_t first, std::int64_t rows, float* scratch) const;
  void linear(Matrix<float const> x, LinearWeights const& weights, Matrix<float> y, bool relu = false);
  void carve(Workspace place, std::int64_t tokens);

  LstmHashWeights const& weights_;
  SparsemaxRule rule_;
  CpuIsa isa_;
  ThreadPool& pool_;
  std::stop_token stop_;
  std::int64_t lanes_ = 1;                     // tasks side by side, of the recurrence and of attention
  std::vector<std::vector<Sequence>> groups_;  // [at most lanes], longest first; each recurs together
  std::int64_t longest_ = 0;                   // tokens of the longest sequence

  Buffer buffer_;
  std::size_t used_bytes_ = 0;
  Matrix<float> compressed_;           // [tokens, hidden]
  Matrix<float> gates_;                // [tokens, 4 * hidden], the input's part
  Matrix<float> below_, above_;        // [tokens, hidden], outputs of the two LSTM layers
  Matrix<float> mixed_;                // [tokens, hidden], what the heads read
  std::vector<Matrix<float>> logits_;  // one per MoE layer
  std::vector<float*> lane_scratch_;   // one per lane
};

}  // namespace sida::inline v0::predict_detail
