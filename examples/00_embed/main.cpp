// The least that an engine does: one MoE layer whose experts live in a store of a third of their size. The result is
// checked against the same layer with all experts resident.
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <sida/core/memory.hpp>
#include <sida/layer/moe_layer.hpp>

namespace {

constexpr sida::MoeShape kShape{
    .layer = 0, .experts = 12, .k = 2, .kind = sida::FfnKind::swiglu, .d_model = 64, .d_ff = 128};
constexpr std::int64_t kTokens = 16;

std::vector<float> random_floats(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

/// Where this engine has its experts: random weights that stand in for a model's file.
class Experts final : public sida::ExpertSource {
 public:
  explicit Experts(sida::ExpertLayout const& layout) {
    for (unsigned expert = 0; expert < kShape.experts; ++expert) {
      records_.push_back(random_floats(layout.size_bytes / sizeof(float), expert));
    }
  }
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return {&kShape.experts, 1}; }
  std::size_t record_bytes(sida::ExpertId id) const noexcept override {
    return records_[id.expert].size() * sizeof(float);
  }
  sida::Status read(sida::ExpertId id, std::span<std::byte> dst) const override {
    std::memcpy(dst.data(), records_[id.expert].data(), record_bytes(id));
    return {};
  }
  std::byte const* resident(std::size_t expert) const {
    return reinterpret_cast<std::byte const*>(records_[expert].data());
  }

 private:
  std::vector<std::vector<float>> records_;
};

// The essence: a store, a layer over it, one step.
sida::Status run(std::shared_ptr<Experts const> experts, std::size_t budget_bytes, sida::Matrix<float const> x,
                 sida::Matrix<float const> logits, sida::Routing<> routing, sida::Matrix<float> y,
                 sida::StoreStats& stats) {
  sida::HostMemory memory;
  sida::InlinePool pool;
  auto store =
      sida::ExpertStore::open(*experts, sida::make_host_tier(experts, memory, 2), {.budget_bytes = budget_bytes});
  if (!store) return store.status();
  sida::TopKSoftmaxRouter const router(kShape.k, sida::TopKSoftmaxRouter::Weights::renormalised);
  sida::MoeLayer<float, sida::Tier::host, sida::TopKSoftmaxRouter> layer(kShape, **store, router);
  auto workspace = sida::Buffer::allocate(memory, layer.workspace_bytes(x.rows));
  if (!workspace) return workspace.status();
  std::uint32_t const sequence[] = {0, static_cast<std::uint32_t>(x.rows)};
  if (auto routed = layer.route(logits, {.sequence_offsets = sequence}, routing); !routed) return routed;
  if (auto done = layer.apply(x, routing, y, {.pool = pool, .workspace = workspace->bytes()}); !done) return done;
  stats = (*store)->stats();
  return {};
}

/// The same layer with every expert in memory.
sida::Status run_resident(Experts const& experts, sida::Matrix<float const> x, sida::Routing<> routing,
                          sida::Matrix<float> y) {
  sida::HostMemory memory;
  sida::InlinePool pool;
  std::vector<std::byte const*> records;
  for (std::size_t expert = 0; expert < kShape.experts; ++expert) records.push_back(experts.resident(expert));
  auto workspace = sida::Buffer::allocate(memory, sida::moe_workspace_bytes(kShape, x.rows));
  if (!workspace) return workspace.status();
  return sida::moe_over_arrays(kShape, sida::Dtype::f32, sida::best_cpu_isa(), records, x, routing, y,
                               {.pool = pool, .workspace = workspace->bytes()});
}

}  // namespace

int main() {
  auto const layout = sida::ExpertLayout::of({kShape.kind, sida::Dtype::f32, kShape.d_model, kShape.d_ff});
  if (!layout) return 1;
  auto const experts = std::make_shared<Experts const>(*layout);
  std::size_t const budget_bytes = kShape.experts / 3 * sida::slot_bytes_for(layout->size_bytes);

  auto const x = random_floats(kTokens * kShape.d_model, 100);
  auto const logits = random_floats(kTokens * kShape.experts, 101);
  std::vector<float> y(x.size()), expected(x.size());
  sida::HostRouting routing;
  routing.resize(kTokens, kShape.k);
  sida::StoreStats stats;

  sida::Matrix<float const> const input(x.data(), kTokens, kShape.d_model);
  auto status = run(experts, budget_bytes, input, {logits.data(), kTokens, kShape.experts}, routing.view(),
                    {y.data(), kTokens, kShape.d_model}, stats);
  if (status) status = run_resident(*experts, input, routing.view(), {expected.data(), kTokens, kShape.d_model});
  if (!status) {
    std::fprintf(stderr, "embed: %s\n", status.message().c_str());
    return 1;
  }
  bool const same = std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)) == 0;
  std::printf("%u experts in %zu bytes of slots: %llu loads, peak %llu bytes; output %s\n", kShape.experts,
              budget_bytes, static_cast<unsigned long long>(stats.loads),
              static_cast<unsigned long long>(stats.peak_resident_bytes),
              same ? "identical to all resident" : "DIFFERS from all resident");
  return same && stats.peak_resident_bytes <= budget_bytes ? 0 : 1;
}
