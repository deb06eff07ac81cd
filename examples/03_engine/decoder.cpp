#include "decoder.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace engine {
namespace {

float dot(float const* a, float const* b, std::int64_t n) {
  // Eight sums, so that the compiler may keep them in one vector; always in the same order.
  float sums[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += a[i + j] * b[i + j];
  }
  float sum = 0.0F;
  for (float const part : sums) sum += part;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void softmax(float* values, std::int64_t n) {
  float const highest = *std::max_element(values, values + n);
  float sum = 0.0F;
  for (std::int64_t i = 0; i < n; ++i) sum += values[i] = std::exp(values[i] - highest);
  for (std::int64_t i = 0; i < n; ++i) values[i] /= sum;
}

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

DenseWeights DenseWeights::carve(Config const& config, float const* data) {
  std::size_t used = 0;
  auto const take = [&](std::int64_t rows, std::int64_t cols) {
    float const* const at = data == nullptr ? nullptr : data + used;
    used += size(rows * cols);
    return at;
  };
  std::int64_t const d = config.d_model;
  std::int64_t const q_rows = config.heads * config.head_dim;
  std::int64_t const kv_rows = config.kv_heads * config.head_dim;
  DenseWeights w{};
  w.embedding = take(config.vocabulary, d);
  for (std::uint32_t i = 0; i < config.layers(); ++i) {
    // Members of a braced list are evaluated in order.
    w.layers.push_back({take(1, d), take(q_rows, d), take(kv_rows, d), take(kv_rows, d), take(d, q_rows), take(1, d),
                        take(config.experts(), d)});
  }
  w.final_norm = take(1, d);
  w.lm_head = take(config.vocabulary, d);
  w.floats = used;
  return w;
}

void DenseWeights::fill_norms(Config const& config, float* data) const {
  auto const fill = [&](float const* norm) { std::fill_n(data + (norm - data), config.d_model, 1.0F); };
  for (Layer const& layer : layers) {
    fill(layer.attention_norm);
    fill(layer.moe_norm);
  }
  fill(final_norm);
}

Decoder::Decoder(ModelFile const& file, Allocator& allocator, Threads& threads)
    : config_(file.config()), threads_(threads), dense_(allocator, file.dense_floats() * sizeof(float), 64) {
  auto* const data = reinterpret_cast<float*>(dense_.bytes().data());
  file.read_dense(data);
  weights_ = DenseWeights::carve(config_, data);
  std::int64_t const cached = config_.layers() * config_.max_tokens * config_.kv_heads * config_.head_dim;
  keys_.resize(size(cached));
  values_.resize(size(cached));
  for (auto* const vector : {&x_, &normed_, &y_}) vector->resize(size(config_.d_model));
  for (auto* const vector : {&q_, &attended_}) vector->resize(size(config_.heads * config_.head_dim));
  scores_.resize(size(config_.heads * config_.max_tokens));
  logits_.resize(size(config_.vocabulary));
}

std::vector<float> const& Decoder::step(std::int32_t token, Moe& moe) {
  if (token < 0 || token >= config_.vocabulary) fail("there is no such token");
  if (position_ >= config_.max_tokens) fail("the KV cache is full");
  std::copy_n(weights_.embedding + token * config_.d_model, config_.d_model, x_.begin());
  for (std::uint32_t layer = 0; layer < config_.layers(); ++layer) {
    normalise(weights_.layers[layer].attention_norm);
    attend(layer);
    normalise(weights_.layers[layer].moe_norm);
    run_moe(layer, moe);
  }
  normalise(weights_.final_norm);
  multiply(weights_.lm_head, config_.vocabulary, normed_, logits_.data());
  ++position_;
  return logits_;
}

float* Decoder::cached(std::vector<float>& cache, std::uint32_t layer, std::int64_t position) {
  return &cache[size((layer * config_.max_tokens + position) * config_.kv_heads * config_.head_dim)];
}

/// x_ += attention(normed_).
void Decoder::attend(std::uint32_t layer) {
  DenseWeights::Layer const& w = weights_.layers[layer];
  float* const key = cached(keys_, layer, position_);
  multiply(w.q, config_.heads * config_.head_dim, normed_, q_.data());
  multiply(w.k, config_.kv_heads * config_.head_dim, normed_, key);
  multiply(w.v, config_.kv_heads * config_.head_dim, normed_, cached(values_, layer, position_));
  rotate(q_.data(), config_.heads);
  rotate(key, config_.kv_heads);
  threads_.parallel_for(size(config_.heads),
                        [&](std::size_t head) { attend_head(layer, static_cast<std::int64_t>(head)); });
  multiply(w.o, config_.d_model, attended_, y_.data());
  for (std::size_t i = 0; i < x_.size(); ++i) x_[i] += y_[i];
}

/// Heads share a key and value head in groups. All positions so far are in the cache, so the mask is the loop's end.
void Decoder::attend_head(std::uint32_t layer, std::int64_t head) {
  std::int64_t const n = config_.head_dim;
  std::int64_t const offset = head / (config_.heads / config_.kv_heads) * n;
  float* const scores = &scores_[size(head * config_.max_tokens)];
  float const scale = 1.0F / std::sqrt(static_cast<float>(n));
  for (std::int64_t p = 0; p <= position_; ++p) {
    scores[p] = scale * dot(&q_[size(head * n)], cached(keys_, layer, p) + offset, n);
  }
  softmax(scores, position_ + 1);
  float* const out = &attended_[size(head * n)];
  std::fill_n(out, n, 0.0F);
  for (std::int64_t p = 0; p <= position_; ++p) {
    float const* const value = cached(values_, layer, p) + offset;
    for (std::int64_t i = 0; i < n; ++i) out[i] += scores[p] * value[i];
  }
}

/// Rotary embedding: element i of a head's first half turns with element i of its second. heads: [count, head_dim]
void Decoder::rotate(float* heads, std::int64_t count) const {
  std::int64_t const half = config_.head_dim / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    float const frequency = std::pow(config_.rope_theta, -static_cast<float>(i) / static_cast<float>(half));
    float const angle = static_cast<float>(position_) * frequency;
    float const cosine = std::cos(angle), sine = std::sin(angle);
    for (float* head = heads; head < heads + count * config_.head_dim; head += config_.head_dim) {
      float const first = head[i], second = head[i + half];
      head[i] = first * cosine - second * sine;
      head[i + half] = second * cosine + first * sine;
    }
  }
}

/// x_ += MoE(normed_), of the top-k experts by router; their weights are the softmax, renormalised.
void Decoder::run_moe(std::uint32_t layer, Moe& moe) {
  std::vector<float> scores(config_.experts());
  multiply(weights_.layers[layer].router, config_.experts(), normed_, scores.data());
  softmax(scores.data(), config_.experts());
  std::vector<std::uint16_t> order(config_.experts());
  std::iota(order.begin(), order.end(), std::uint16_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::uint16_t a, std::uint16_t b) { return scores[a] > scores[b]; });
  order.resize(config_.top_k);
  float sum = 0.0F;
  for (std::uint16_t const expert : order) sum += scores[expert];
  std::vector<float> weights;
  for (std::uint16_t const expert : order) weights.push_back(scores[expert] / sum);
  moe.run({layer, 1, normed_.data(), order.data(), weights.data(), y_.data()});
  for (std::size_t i = 0; i < x_.size(); ++i) x_[i] += y_[i];
}

/// RMSNorm: normed_ = x_ / rms(x_) * weight.
void Decoder::normalise(float const* weight) {
  float const mean = dot(x_.data(), x_.data(), config_.d_model) / static_cast<float>(config_.d_model);
  float const scale = 1.0F / std::sqrt(mean + 1e-5F);
  for (std::size_t i = 0; i < x_.size(); ++i) normed_[i] = scale * x_[i] * weight[i];
}

/// y = W x; w: [rows, x.size()]
void Decoder::multiply(float const* w, std::int64_t rows, std::vector<float> const& x, float* y) {
  constexpr std::int64_t kRows = 64;  // of one task
  auto const cols = static_cast<std::int64_t>(x.size());
  threads_.parallel_for(size((rows + kRows - 1) / kRows), [&](std::size_t task) {
    std::int64_t const first = static_cast<std::int64_t>(task) * kRows;
    for (std::int64_t row = first; row < std::min(first + kRows, rows); ++row) {
      y[row] = dot(w + row * cols, x.data(), cols);
    }
  });
}

}  // namespace engine
