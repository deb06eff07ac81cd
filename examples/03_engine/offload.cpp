// Everything that expert offloading adds to this engine: its file, its allocator and its threads as sida wants them,
// and its MoE over a store. A test keeps it within 40 lines.
#include "arms.hpp"
#include <sida/layer/moe_layer.hpp>

namespace engine {

struct Offload final : Moe, sida::ExpertSource, sida::MemoryResource, sida::ThreadPool {
  Offload(Engine const& e, std::size_t budget) : engine(e) {
    // The store goes before this object, so what it holds of it owns nothing.
    std::shared_ptr<sida::ExpertSource const> const self(std::shared_ptr<void>(), this);
    auto opened = sida::ExpertStore::open(*this, sida::make_host_tier(self, *this, 2), {.budget_bytes = budget});
    if (!opened) fail(opened.message());
    store = *std::move(opened);
  }

  // The MoE.
  void run(MoeStep const& s) override {
    std::int64_t const n = s.tokens, d = engine.config.d_model, k = engine.config.top_k;
    sida::MoeShape const shape{s.layer, engine.config.experts(), k, sida::FfnKind::swiglu, d, engine.config.d_ff};
    sida::MoeLayer<sida::bf16, sida::Tier::host, sida::TopKSoftmaxRouter> layer(
        shape, *store, {k, sida::TopKSoftmaxRouter::Weights::renormalised});
    Block const scratch(engine.allocator, layer.workspace_bytes(n), 64);
    auto done = layer.apply({s.x, n, d}, {{s.experts, n, k}, {s.weights, n, k}}, {s.y, n, d}, {*this, scratch.bytes()});
    if (!done) fail(done.message());
  }
  ExpertCounters counters() const override { return {store->stats().hits, store->stats().bytes_loaded}; }

  // The experts' file.
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return engine.config.experts_per_layer; }
  std::size_t record_bytes(sida::ExpertId) const noexcept override { return engine.file.expert_bytes(); }
  sida::Status read(sida::ExpertId id, std::span<std::byte> dst) const override {
    if (engine.file.read_expert(id.layer, id.expert, dst.data())) return {};
    return {sida::Errc::io, engine.file.path() + ": short read of " + to_string(id)};
  }

  // The allocator.
  sida::Result<void*> allocate(std::size_t bytes, std::size_t alignment) override {
    if (void* const data = engine.allocator.allocate(bytes, alignment)) return data;
    return sida::Error(sida::Errc::out_of_memory, "the engine's allocator: " + std::to_string(bytes) + " bytes");
  }
  void deallocate(void* data, std::size_t size, std::size_t) noexcept override { engine.allocator.release(data, size); }
  sida::Tier space() const noexcept override { return sida::Tier::host; }

  // The threads.
  std::size_t concurrency() const noexcept override { return engine.threads.count(); }
  void run(std::size_t tasks, sida::TaskRef task) override { engine.threads.parallel_for(tasks, task); }

  Engine const engine;
  std::unique_ptr<sida::ExpertStore> store;
};

std::unique_ptr<Moe> offloaded_moe(Engine const& e, std::size_t budget) { return std::make_unique<Offload>(e, budget); }

}  // namespace engine
