#include "sida/predict/lstm_hash.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "predict/lstm_hash_network.hpp"
#include "predict/lstm_hash_weights.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0 {

using predict_detail::LstmHashPass;

struct LstmHash::Impl {
  predict_detail::LstmHashWeights weights;
  LstmHashOptions options;
  ThreadPool* pool = nullptr;
  MemoryResource* memory = nullptr;

  Status check(PredictorInput const& input) const;
  /// One pass over all sequences of `inputs`.
  Result<LstmHashPass> run(std::span<PredictorInput const> inputs) const;
  /// The plan of tokens [first, first + tokens) of a pass.
  Result<ActivationPlan> plan(LstmHashPass const& pass, std::int64_t first, std::int64_t tokens) const;
  ActivationPlan::Layer plan_layer(std::uint32_t layer, Matrix<float const> logits) const;
};

namespace {

/// Softmax in place. @return false when a logit is not finite.
bool softmax(std::span<float> row) noexcept {
  float const largest = *std::ranges::max_element(row);
  double sum = 0;
  for (float& value : row) {
    if (!std::isfinite(value)) return false;
    value = std::exp(value - largest);
    sum += static_cast<double>(value);
  }
  for (float& value : row) value = static_cast<float>(static_cast<double>(value) / sum);
  return true;
}

/// The `top.size()` likeliest experts, most likely first, ties to the lowest id.
void choose(std::span<float const> probabilities, std::span<std::uint16_t> ids, std::span<std::uint16_t> top) {
  std::iota(ids.begin(), ids.end(), std::uint16_t{0});
  auto const before = [&](std::uint16_t a, std::uint16_t b) {
    return probabilities[a] != probabilities[b] ? probabilities[a] > probabilities[b] : a < b;
  };
  std::ranges::partial_sort(ids, ids.begin() + std::ssize(top), before);
  std::copy_n(ids.begin(), top.size(), top.begin());
}

}  // namespace

Status LstmHash::Impl::check(PredictorInput const& input) const {
  auto const& x = input.embeddings;
  std::int64_t const tokens = input.batch.tokens();
  if (x.rows != tokens || x.cols != weights.d_model() || x.stride < x.cols || (tokens > 0 && x.data == nullptr)) {
    return {Errc::invalid_argument, "hash function: embeddings are [" + std::to_string(x.rows) + ", " +
                                        std::to_string(x.cols) + "], not [" + std::to_string(tokens) + ", " +
                                        std::to_string(weights.d_model()) + "]"};
  }
  auto const& offsets = input.batch.sequence_offsets;
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != tokens || !std::ranges::is_sorted(offsets)) {
    return {Errc::invalid_argument, "hash function: the batch's sequences do not divide its tokens"};
  }
  return {};
}

Result<LstmHashPass> LstmHash::Impl::run(std::span<PredictorInput const> inputs) const {
  std::vector<Matrix<float const>> embeddings;
  std::vector<LstmHashPass::Sequence> sequences;
  std::int64_t first = 0;
  for (PredictorInput const& input : inputs) {
    SIDA_TRY(check(input));
    embeddings.push_back(input.embeddings);
    auto const& offsets = input.batch.sequence_offsets;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      sequences.push_back({first + offsets[i], std::int64_t{offsets[i + 1]} - offsets[i]});
    }
    first += input.batch.tokens();
  }
  LstmHashPass pass(weights, options.sparsemax, options.isa, *pool, options.stop);
  SIDA_TRY(pass.run(embeddings, sequences, *memory));
  return pass;
}

Result<ActivationPlan> LstmHash::Impl::plan(LstmHashPass const& pass, std::int64_t first, std::int64_t tokens) const {
  ActivationPlan plan;
  plan.tokens = tokens;
  plan.k = options.top_k;
  if (tokens == 0) return plan;
  for (std::size_t i = 0; i < weights.heads.size(); ++i) {
    auto const layer = static_cast<std::uint32_t>(i);
    ActivationPlan::Layer& planned =
        plan.layers.emplace_back(plan_layer(layer, pass.logits(i).row_range(first, tokens)));
    if (planned.experts.empty()) {
      return Error(Errc::invalid_argument,
                   "hash function: its output for MoE layer " + std::to_string(layer) + " is not finite");
    }
  }
  return plan;
}

/// Without experts when a logit is not finite.
ActivationPlan::Layer LstmHash::Impl::plan_layer(std::uint32_t layer, Matrix<float const> logits) const {
  auto const experts = static_cast<std::size_t>(logits.cols);
  auto const k = static_cast<std::size_t>(options.top_k);
  ActivationPlan::Layer planned;
  planned.experts.resize(static_cast<std::size_t>(logits.rows) * k);
  planned.alphas.resize(planned.experts.size());
  std::vector<float> probabilities(experts);
  std::vector<std::uint16_t> ids(experts);
  std::vector<double> unused(experts, 1.0);  // probability that no token takes the expert
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    std::ranges::copy(logits.row(t), probabilities.begin());
    if (!softmax(probabilities)) return {};
    auto const top = std::span(planned.experts).subspan(static_cast<std::size_t>(t) * k, k);
    choose(probabilities, ids, top);
    double sum = 1;
    if (options.renormalise) {
      sum = 0;
      for (std::uint16_t const expert : top) sum += static_cast<double>(probabilities[expert]);
    }
    for (std::size_t r = 0; r < k; ++r) {
      auto const alpha = static_cast<float>(static_cast<double>(probabilities[top[r]]) / sum);
      planned.alphas[static_cast<std::size_t>(t) * k + r] = to_fp16(alpha);
    }
    if (options.set == PlannedSet::chosen) continue;
    for (std::size_t e = 0; e < experts; ++e) unused[e] *= 1 - static_cast<double>(probabilities[e]);
  }
  if (options.set == PlannedSet::chosen) {
    planned.expert_set = expert_set(layer, {planned.experts.data(), logits.rows, options.top_k});
    return planned;
  }
  for (std::size_t e = 0; e < experts; ++e) {
    if (1 - unused[e] >= options.likely) planned.expert_set.push_back({layer, static_cast<std::uint32_t>(e)});
  }
  return planned;
}

LstmHash::LstmHash(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
LstmHash::~LstmHash() = default;
LstmHash::LstmHash(LstmHash&&) noexcept = default;
LstmHash& LstmHash::operator=(LstmHash&&) noexcept = default;

Result<LstmHash> LstmHash::load(TensorSource const& source, LstmHashOptions const& options, ThreadPool& pool,
                                MemoryResource& memory) {
  if (!(options.likely >= 0 && options.likely <= 1)) {
    return Error(Errc::invalid_argument, "a probability of " + std::to_string(options.likely));
  }
  if (!is_runnable(options.isa)) {
    return Error(Errc::invalid_argument,
                 "this processor does not run " + std::string(to_string(options.isa)) + " code");
  }
  auto impl = std::make_unique<Impl>();
  SIDA_TRY_ASSIGN(impl->weights, predict_detail::load_lstm_hash_weights(source, memory));
  if (options.top_k < 1 || options.top_k > impl->weights.experts()) {
    return Error(Errc::invalid_argument, source.path() + ": top-" + std::to_string(options.top_k) + " of " +
                                             std::to_string(impl->weights.experts()) + " experts");
  }
  impl->options = options;
  impl->pool = &pool;
  impl->memory = &memory;
  return LstmHash(std::move(impl));
}

std::int64_t LstmHash::d_model() const noexcept { return impl_->weights.d_model(); }
std::int64_t LstmHash::hidden() const noexcept { return impl_->weights.hidden(); }
std::uint32_t LstmHash::experts() const noexcept { return static_cast<std::uint32_t>(impl_->weights.experts()); }
std::uint32_t LstmHash::layers() const noexcept { return static_cast<std::uint32_t>(impl_->weights.heads.size()); }
std::size_t LstmHash::weight_bytes() const noexcept { return impl_->weights.arena.size_bytes(); }

Result<ActivationPlan> LstmHash::predict(PredictorInput const& input) const {
  SIDA_TRY_ASSIGN(auto const pass, impl_->run({&input, 1}));
  return impl_->plan(pass, 0, input.batch.tokens());
}

Result<std::vector<ActivationPlan>> LstmHash::predict_all(std::span<PredictorInput const> inputs) const {
  SIDA_TRY_ASSIGN(auto const pass, impl_->run(inputs));
  std::vector<ActivationPlan> plans;
  std::int64_t first = 0;
  for (PredictorInput const& input : inputs) {
    SIDA_TRY_ASSIGN(auto plan, impl_->plan(pass, first, input.batch.tokens()));
    plans.push_back(std::move(plan));
    first += input.batch.tokens();
  }
  return plans;
}

Result<std::vector<float>> LstmHash::logits(PredictorInput const& input) const {
  SIDA_TRY_ASSIGN(auto const pass, impl_->run({&input, 1}));
  std::vector<float> all;
  for (std::uint32_t layer = 0; layer < layers(); ++layer) {
    Matrix<float const> const logits = pass.logits(layer);
    all.insert(all.end(), logits.data, logits.data + logits.rows * logits.cols);
  }
  return all;
}

}  // namespace sida::inline v0
