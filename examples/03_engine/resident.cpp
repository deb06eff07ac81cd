// The engine's MoE before it offloads anything: experts in one array. Its expert kernels are sida's too
// (moe_over_arrays), so that arms may be compared byte by byte; kernels of another make would round differently.
#include <vector>

#include "arms.hpp"
#include <sida/layer/moe_layer.hpp>

namespace engine {
namespace {

class Pool final : public sida::ThreadPool {
 public:
  explicit Pool(Threads& threads) : threads_(threads) {}
  std::size_t concurrency() const noexcept override { return threads_.count(); }
  void run(std::size_t tasks, sida::TaskRef task) override { threads_.parallel_for(tasks, task); }

 private:
  Threads& threads_;
};

class ResidentMoe final : public Moe {
 public:
  explicit ResidentMoe(Engine const& engine)
      : config_(engine.config),
        bytes_(engine.file.expert_bytes() * config_.layers() * config_.experts()),
        pool_(engine.threads),
        experts_(engine.allocator, bytes_, 4096),
        workspace_(engine.allocator, sida::moe_workspace_bytes(shape(0), 1), 64) {
    for (std::uint32_t i = 0; i < config_.layers() * config_.experts(); ++i) {
      std::byte* const record = experts_.bytes().data() + i * engine.file.expert_bytes();
      if (!engine.file.read_expert(i / config_.experts(), i % config_.experts(), record)) {
        fail(engine.file.path() + ": short read of an expert");
      }
      records_.push_back(record);
    }
  }

  void run(MoeStep const& s) override {
    std::int64_t const d = config_.d_model, k = config_.top_k;
    auto const status =
        sida::moe_over_arrays(shape(s.layer), sida::Dtype::bf16, sida::best_cpu_isa(),
                              std::span(records_).subspan(std::size_t{s.layer} * config_.experts(), config_.experts()),
                              {s.x, s.tokens, d}, {{s.experts, s.tokens, k}, {s.weights, s.tokens, k}},
                              {s.y, s.tokens, d}, {.pool = pool_, .workspace = workspace_.bytes()});
    if (!status) fail(status.message());
  }
  ExpertCounters counters() const override { return {.bytes_read = bytes_}; }

 private:
  sida::MoeShape shape(std::uint32_t layer) const {
    return {layer, config_.experts(), config_.top_k, sida::FfnKind::swiglu, config_.d_model, config_.d_ff};
  }

  Config config_;
  std::size_t bytes_;
  Pool pool_;
  Block experts_;
  Block workspace_;
  std::vector<std::byte const*> records_;  // [layers * experts]
};

}  // namespace

std::unique_ptr<Moe> resident_moe(Engine const& engine) { return std::make_unique<ResidentMoe>(engine); }

}  // namespace engine
