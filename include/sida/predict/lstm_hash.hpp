#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "sida/core/api.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/memory.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/io/tensor_source.hpp"
#include "sida/kernels/cpu.hpp"
#include "sida/predict/predictor.hpp"

namespace sida::inline v0 {

/// How rows of attention scores become weights.
enum class SparsemaxRule : std::uint8_t {
  exact,     ///< Martins and Astudillo, 2016: the projection onto the simplex
  released,  ///< as the code released with the paper has it: 1 is subtracted twice, then rows are divided by their sum
};

/// What a layer's expert set holds, which is what a store loads ahead.
enum class PlannedSet : std::uint8_t {
  chosen,  ///< the experts of the predicted ids: all that predicted mode will use
  likely,  ///< experts that some token of the batch takes with a probability of at least `LstmHashOptions::likely`
};

struct LstmHashOptions {
  std::int64_t top_k = 1;  ///< experts per token in plans; at most all of a layer
  PlannedSet set = PlannedSet::chosen;
  double likely = 0.5;  ///< from 0 (every expert) to 1; read with PlannedSet::likely
  /// Divide a token's alphas by their sum.
  bool renormalise = false;
  SparsemaxRule sparsemax = SparsemaxRule::exact;
  CpuIsa isa = best_cpu_isa();
  std::stop_token stop = {};  ///< ends a long prediction early, which then returns `cancelled`
};

/// Projects `row` onto the probability simplex in place, or does as the released code. `scratch`: as long as `row`.
SIDA_API void sparsemax(SparsemaxRule rule, std::span<float> row, std::span<float> scratch) noexcept;

/// The hash function of SiDA-MoE (arXiv 2310.18859, section 3.4.2): from the word embeddings alone, the experts that
/// each token will use in every MoE layer. A linear layer with ReLU, a two-layer LSTM, sparsemax self-attention within
/// each sequence without projections or scaling, a linear residual of the first layer's output, and one linear head
/// per MoE layer. Sequences are ragged: nothing attends to padding, and nothing is computed for it.
/// A plan's alphas are the softmax over all of a layer's experts. A sequence's prediction does not depend on what else
/// is in the batch, on threads or on how requests are queued together. `predict` is reentrant if the pool is.
class SIDA_API LstmHash {
 public:
  /// Reads the network from tensors in PyTorch's layout: `compression_fc.{weight,bias}` [hidden, d_model],
  /// `lstm.{weight_ih,weight_hh,bias_ih,bias_hh}_l{0,1}` (gates i, f, g, o), `residual_fc.{weight,bias}`
  /// [hidden, hidden], and for each MoE layer `fc.N.{weight,bias}` [experts, hidden], N ascending (the number of its
  /// block). fp32, fp16 or bf16; computed in float32. `pool` and `memory` must outlive the predictor.
  /// @return not_found, corrupt (naming the tensor), unsupported, io, out_of_memory; invalid_argument for options.
  static Result<LstmHash> load(TensorSource const& source, LstmHashOptions const& options, ThreadPool& pool,
                               MemoryResource& memory);
  ~LstmHash();
  LstmHash(LstmHash&&) noexcept;
  LstmHash& operator=(LstmHash&&) noexcept;

  std::int64_t d_model() const noexcept;
  std::int64_t hidden() const noexcept;
  std::uint32_t experts() const noexcept;  ///< of each MoE layer
  std::uint32_t layers() const noexcept;   ///< MoE layers
  std::size_t weight_bytes() const noexcept;

  /// @return invalid_argument when `embeddings` are not [tokens, d_model]; out_of_memory.
  Result<ActivationPlan> predict(PredictorInput const& input) const;
  /// Several queued requests at once: the plans that `predict` gives, in one pass over the weights.
  Result<std::vector<ActivationPlan>> predict_all(std::span<PredictorInput const> inputs) const;
  /// The heads' outputs, before softmax: one [tokens, experts] block after the other, layer by layer.
  Result<std::vector<float>> logits(PredictorInput const& input) const;

  void observe(std::uint64_t, std::uint32_t, Matrix<std::uint16_t const>) noexcept {}

 private:
  struct Impl;
  explicit LstmHash(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};
static_assert(Predictor<LstmHash>);

}  // namespace sida::inline v0
