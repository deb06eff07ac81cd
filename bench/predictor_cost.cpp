// What does the hash function cost? LstmHash::predict on one thread, as the hash-building thread runs it, for one
// sentence and for a batch of eight: the shipped predictor, and the shape that belongs to switch-base-64.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "sida/core/memory.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/io/safetensors.hpp"
#include "sida/predict/lstm_hash.hpp"

namespace {

using namespace sida;

constexpr std::uint32_t kTokens = 24;  // of a sentence; SST-2's have about as many

/// The sizes of a hash function.
struct Shape {
  std::int64_t d_model, hidden, layers, experts;
};
constexpr Shape kSwitchBase64 = {768, 256, 6, 64};

/// A hash function's tensors with random weights.
class RandomTensors final : public TensorSource {
 public:
  explicit RandomTensors(Shape const& shape) {
    std::int64_t const h = shape.hidden;
    add("compression_fc.weight", {h, shape.d_model});
    add("compression_fc.bias", {h});
    for (std::string const layer : {"l0", "l1"}) {
      add("lstm.weight_ih_" + layer, {4 * h, h});
      add("lstm.weight_hh_" + layer, {4 * h, h});
      add("lstm.bias_ih_" + layer, {4 * h});
      add("lstm.bias_hh_" + layer, {4 * h});
    }
    add("residual_fc.weight", {h, h});
    add("residual_fc.bias", {h});
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
      std::string const head = "fc." + std::to_string(layer);
      add(head + ".weight", {shape.experts, h});
      add(head + ".bias", {shape.experts});
    }
    std::ranges::sort(tensors_, {}, &TensorInfo::name);
  }

  std::string const& path() const noexcept override { return path_; }
  std::span<TensorInfo const> tensors() const noexcept override { return tensors_; }
  ReadStats read_stats() const noexcept override { return {}; }
  Status read(std::string_view name, std::uint64_t, std::span<std::byte> dst) const override {
    std::mt19937 random(static_cast<std::uint32_t>(std::hash<std::string_view>()(name)));
    std::normal_distribution<float> normal(0.0F, 0.05F);
    for (std::size_t i = 0; i + sizeof(float) <= dst.size(); i += sizeof(float)) {
      float const value = normal(random);
      std::memcpy(dst.data() + i, &value, sizeof value);
    }
    return {};
  }

 private:
  void add(std::string name, std::vector<std::int64_t> shape) {
    std::uint64_t bytes = sizeof(float);
    for (std::int64_t const extent : shape) bytes *= static_cast<std::uint64_t>(extent);
    tensors_.push_back({.name = std::move(name), .dtype_name = "F32", .shape = std::move(shape), .size_bytes = bytes});
  }
  std::string path_ = "random weights";
  std::vector<TensorInfo> tensors_;
};

/// A batch of sentences and its random embeddings.
struct Sentences {
  TokenBatch batch;
  std::vector<float> embeddings;

  Sentences(std::int64_t count, std::int64_t d_model) {
    std::vector<std::int32_t> const sentence(kTokens, 1);
    for (std::int64_t i = 0; i < count; ++i) batch.append(sentence);
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    embeddings.resize(static_cast<std::size_t>(batch.tokens() * d_model));
    for (float& value : embeddings) value = normal(random);
  }
};

void predict(benchmark::State& state, TensorSource const& tensors) {
  InlinePool pool;
  HostMemory memory;
  // As exact mode loads it.
  auto const hash =
      LstmHash::load(tensors, {.top_k = 3, .set = PlannedSet::likely, .isa = best_cpu_isa()}, pool, memory);
  if (!hash) return state.SkipWithError(hash.message().c_str());
  Sentences const sentences(state.range(0), hash->d_model());
  Matrix<float const> const embeddings(sentences.embeddings.data(), sentences.batch.tokens(), hash->d_model());
  for (auto _ : state) {
    auto plan = hash->predict({sentences.batch, embeddings});
    if (!plan) return state.SkipWithError(plan.message().c_str());
    benchmark::DoNotOptimize(plan->layers.data());
  }
  state.counters["s_per_token"] =
      benchmark::Counter(static_cast<double>(sentences.batch.tokens()),
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void reference_predictor(benchmark::State& state) {
  auto const tensors = open_safetensors(SIDA_REFERENCE_MODEL "/predictor.safetensors", ReadPath::pread);
  if (!tensors) return state.SkipWithError(tensors.message().c_str());
  predict(state, **tensors);
}
BENCHMARK(reference_predictor)->ArgName("sentences")->Arg(1)->Arg(8)->Unit(benchmark::kMicrosecond);

void switch_base_64_predictor(benchmark::State& state) { predict(state, RandomTensors(kSwitchBase64)); }
BENCHMARK(switch_base_64_predictor)->ArgName("sentences")->Arg(1)->Arg(8)->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
