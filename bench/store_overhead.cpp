// What does a store cost when everything is resident? The same MoE layers over a store with a slot for every expert,
// and over plain arrays, interleaved in one process: bench_store_overhead [ROUNDS]. Prints throughputs and their ratio.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "sida/core/memory.hpp"
#include "sida/layer/moe_layer.hpp"

namespace {

using namespace sida;
using Clock = std::chrono::steady_clock;

/// Experts with random weights, made where they are read to.
class RandomSource final : public ExpertSource {
 public:
  RandomSource(std::vector<std::uint32_t> layers, ExpertLayout const& layout)
      : layers_(std::move(layers)), layout_(layout) {}
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return layers_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return layout_.size_bytes; }
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    std::mt19937 random(id.layer * 7919 + id.expert);
    std::normal_distribution<float> normal(0.0F, 0.05F);
    for (std::size_t i = 0; i + 2 <= layout_.size_bytes; i += 2) {
      bf16 const value = to_bf16(normal(random));
      std::memcpy(dst.data() + i, &value, sizeof value);
    }
    return {};
  }

 private:
  std::vector<std::uint32_t> layers_;
  ExpertLayout layout_;
};

struct Shape {
  char const* name;
  std::uint32_t layers, experts;
  std::int64_t d_model, d_ff, tokens;
};

/// Both arms over the same experts, inputs and routing.
class Arms {
 public:
  explicit Arms(Shape const& shape)
      : shape_(shape),
        layout_(*ExpertLayout::of({FfnKind::relu, Dtype::bf16, shape.d_model, shape.d_ff})),
        source_(std::make_shared<RandomSource>(std::vector<std::uint32_t>(shape.layers, shape.experts), layout_)) {
    std::size_t const slot = slot_bytes_for(layout_.size_bytes);
    std::size_t const all = std::size_t{shape.layers} * shape.experts * slot;
    auto store = ExpertStore::open(*source_, make_host_tier(source_, memory_, 2), {.budget_bytes = all});
    auto arrays = Buffer::allocate(memory_, all, kRecordAlignment);
    if (!store || !arrays) std::exit(1);
    store_ = *std::move(store);
    arrays_ = *std::move(arrays);
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      records_.emplace_back();
      std::vector<ExpertId> ids;
      for (std::uint32_t expert = 0; expert < shape.experts; ++expert) {
        auto const bytes = arrays_.bytes().subspan((layer * shape.experts + expert) * slot, slot);
        if (!source_->read({layer, expert}, bytes)) std::exit(1);
        records_.back().push_back(bytes.data());
        ids.push_back({layer, expert});
      }
      if (!store_->acquire(ids, StreamRef::host())) std::exit(1);  // warm
      layers_.emplace_back(moe_shape(layer), *store_, SwitchRouter(CapacityRule::none, 0));
    }
    make_input();
  }

  double with_store() {
    auto const start = Clock::now();
    for (auto& layer : layers_) check(layer.apply(x_view(), routing_.view(), y_view(), context()));
    return seconds_since(start);
  }
  double with_arrays() {
    auto const start = Clock::now();
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      check(moe_over_arrays(moe_shape(layer), Dtype::bf16, best_cpu_isa(), records_[layer], x_view(), routing_.view(),
                            y_view(), context()));
    }
    return seconds_since(start);
  }
  std::vector<float> const& y() const { return y_; }

 private:
  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  static void check(Status const& status) {
    if (status) return;
    std::fprintf(stderr, "bench_store_overhead: %s\n", status.message().c_str());
    std::exit(1);
  }
  MoeShape moe_shape(std::uint32_t layer) const {
    return {.layer = layer,
            .experts = shape_.experts,
            .k = 1,
            .kind = FfnKind::relu,
            .d_model = shape_.d_model,
            .d_ff = shape_.d_ff};
  }
  void make_input() {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    x_.resize(static_cast<std::size_t>(shape_.tokens * shape_.d_model));
    y_.resize(x_.size());
    for (float& value : x_) value = normal(random);
    routing_.resize(shape_.tokens, 1);
    for (std::int64_t t = 0; t < shape_.tokens; ++t) {
      routing_.view().experts(t, 0) = static_cast<std::uint16_t>(random() % shape_.experts);
      routing_.view().weights(t, 0) = 0.5F;
    }
    auto workspace = Buffer::allocate(memory_, moe_workspace_bytes(moe_shape(0), shape_.tokens));
    if (!workspace) std::exit(1);
    workspace_ = *std::move(workspace);
  }
  Matrix<float const> x_view() const { return {x_.data(), shape_.tokens, shape_.d_model}; }
  Matrix<float> y_view() { return {y_.data(), shape_.tokens, shape_.d_model}; }
  MoeContext context() { return {.pool = pool_, .workspace = workspace_.bytes()}; }

  Shape shape_;
  ExpertLayout layout_;
  std::shared_ptr<RandomSource> source_;
  HostMemory memory_;
  WorkerPool pool_{2};
  std::unique_ptr<ExpertStore> store_;
  Buffer arrays_, workspace_;
  std::vector<std::vector<std::byte const*>> records_;
  std::vector<MoeLayer<bf16, Tier::host, SwitchRouter>> layers_;
  std::vector<float> x_, y_;
  HostRouting routing_;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void run(Shape const& shape, int rounds) {
  Arms arms(shape);
  std::vector<double> store, arrays, ratio;
  bool same = true;
  for (int round = 0; round < rounds; ++round) {
    store.push_back(arms.with_store());
    auto const from_store = arms.y();
    arrays.push_back(arms.with_arrays());
    same = same && from_store == arms.y();
    ratio.push_back(arrays.back() / store.back());
  }
  double const steps = static_cast<double>(shape.tokens);
  std::printf("%-28s %8lld %14.0f %14.0f %8.3f  %s\n", shape.name, static_cast<long long>(shape.tokens),
              steps / median(store), steps / median(arrays), median(ratio), same ? "same bytes" : "DIFFERENT BYTES");
}

}  // namespace

int main(int argc, char** argv) {
  int const rounds = argc > 1 ? std::atoi(argv[1]) : 201;
  std::printf("%-28s %8s %14s %14s %8s\n", "layers", "tokens", "store tok/s", "arrays tok/s", "ratio");
  run({"reference, 3 x 32 experts", 3, 32, 128, 256, 1}, rounds);
  run({"reference, 3 x 32 experts", 3, 32, 128, 256, 24}, rounds);
  run({"reference, 3 x 32 experts", 3, 32, 128, 256, 256}, rounds);
  run({"switch-base, 2 x 16 experts", 2, 16, 768, 3072, 1}, rounds);
  run({"switch-base, 2 x 16 experts", 2, 16, 768, 3072, 24}, rounds);
  run({"switch-base, 2 x 16 experts", 2, 16, 768, 3072, 256}, rounds);
  return 0;
}
