#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "allocator.hpp"
#include "model_file.hpp"
#include "threads.hpp"

namespace engine {

/// One step of one MoE layer.
struct MoeStep {
  std::uint32_t layer;
  std::int64_t tokens;
  float const* x;          // [tokens, d_model]
  std::uint16_t* experts;  // [tokens, top_k]
  float* weights;          // [tokens, top_k]
  float* y;                // [tokens, d_model]
};

/// Where a MoE had its experts from.
struct ExpertCounters {
  std::uint64_t hits = 0;  // experts that were in memory when a step needed them
  std::uint64_t bytes_read = 0;
};

/// The one place where the decoder meets its experts.
class Moe {
 public:
  virtual ~Moe() = default;
  /// y[t] = sum over ranks r of weights[t, r] * expert[t, r](x[t]). @throws std::runtime_error.
  virtual void run(MoeStep const& step) = 0;
  virtual ExpertCounters counters() const = 0;
};

/// Weights that every token uses, as they stand in the file.
struct DenseWeights {
  struct Layer {
    float const* attention_norm;  // [d_model]
    float const* q;               // [heads * head_dim, d_model]
    float const* k;               // [kv_heads * head_dim, d_model]
    float const* v;               // [kv_heads * head_dim, d_model]
    float const* o;               // [d_model, heads * head_dim]
    float const* moe_norm;        // [d_model]
    float const* router;          // [experts, d_model]
  };
  float const* embedding;  // [vocabulary, d_model]
  std::vector<Layer> layers;
  float const* final_norm;  // [d_model]
  float const* lm_head;     // [vocabulary, d_model]
  std::size_t floats;       // all together

  /// Where each stands in `data`; with nullptr, only how many floats there are.
  static DenseWeights carve(Config const& config, float const* data);
  /// Random norms would drown the rest: makes those in `data`, which this was carved from, 1.
  void fill_norms(Config const& config, float* data) const;
};

/// Decodes one sequence token by token: RMSNorm, causal grouped-query attention with rotary embedding and a KV cache,
/// RMSNorm, top-k router renormalised, MoE.
class Decoder {
 public:
  Decoder(ModelFile const& file, Allocator& allocator, Threads& threads);

  /// Starts a new sequence.
  void reset() noexcept { position_ = 0; }
  /// Feeds one token. @return logits [vocabulary], valid until the next call. @throws std::runtime_error.
  std::vector<float> const& step(std::int32_t token, Moe& moe);

 private:
  void attend(std::uint32_t layer);
  void attend_head(std::uint32_t layer, std::int64_t head);
  void rotate(float* heads, std::int64_t count) const;
  void run_moe(std::uint32_t layer, Moe& moe);
  void normalise(float const* weight);
  void multiply(float const* w, std::int64_t rows, std::vector<float> const& x, float* y);
  float* cached(std::vector<float>& cache, std::uint32_t layer, std::int64_t position);

  Config config_;
  Threads& threads_;
  Block dense_;
  DenseWeights weights_;
  std::vector<float> keys_, values_;  // [layers, max_tokens, kv_heads * head_dim]
  std::vector<float> x_, normed_;     // [d_model]
  std::vector<float> q_, attended_;   // [heads * head_dim]
  std::vector<float> y_;              // [d_model]
  std::vector<float> scores_;         // [heads, max_tokens]
  std::vector<float> logits_;         // [vocabulary]
  std::int64_t position_ = 0;
};

}  // namespace engine
