// What offloading adds: the engine's pool and file as sida wants them, and a chain of stores.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "blob_file.hpp"
#include "device.hpp"
#include <sida/cuda/device_tier.hpp>
#include <sida/cuda/gemm.hpp>
#include <sida/cuda/handles.hpp>
#include <sida/cuda/memory.hpp>
#include <sida/cuda/moe_layer.hpp>

namespace engine {

/// The pool. The store asks it once, the layer for what a step works in.
class PoolMemory final : public sida::MemoryResource {
 public:
  explicit PoolMemory(Pool& pool) : pool_(pool) {}
  sida::Result<void*> allocate(std::size_t bytes, std::size_t) override {
    if (void* const data = pool_.take(bytes)) return data;
    return sida::Error(sida::Errc::out_of_memory, "the engine's pool has no room for " + std::to_string(bytes));
  }
  void deallocate(void* data, std::size_t, std::size_t) noexcept override { pool_.give_back(data); }
  sida::Tier space() const noexcept override { return sida::Tier::device; }

 private:
  Pool& pool_;
};

/// The file: its matrices put where sida's kernels look for them.
class BlobSource final : public sida::ExpertSource {
 public:
  BlobSource(BlobFile const& file, Config const& config)
      : file_(file), experts_(config.experts), layout_(*sida::ExpertLayout::of(shape_of(config))) {}
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return {&experts_, 1}; }
  std::size_t record_bytes(sida::ExpertId) const noexcept override { return layout_.size_bytes; }
  sida::Status read(sida::ExpertId id, std::span<std::byte> to) const override {
    bool const complete = file_.read(id.expert, Matrix::gate, to.data() + layout_.gate) &&
                          file_.read(id.expert, Matrix::up, to.data() + layout_.in) &&
                          file_.read(id.expert, Matrix::down, to.data() + layout_.out);
    if (complete) return {};
    return {sida::Errc::io, "blob file: short read of " + sida::to_string(id)};
  }
  sida::ExpertLayout const& layout() const { return layout_; }
  static sida::ExpertShape shape_of(Config const& config) {
    return {sida::FfnKind::swiglu, sida::Dtype::bf16, config.d_model, config.d_ff};
  }

 private:
  BlobFile const& file_;
  std::uint32_t experts_;
  sida::ExpertLayout layout_;
};

/// One MoE block whose experts are offloaded: `slots` of them on the GPU, twice as many in pinned host memory.
class OffloadedBlock {
 public:
  OffloadedBlock(Device& device, BlobFile const& file, Config const& config, std::uint32_t slots);

  /// y = the block's output for x, float [tokens, d_model], routed by `logits`, float [tokens, experts]; all on the
  /// GPU. Enqueued on the engine's stream.
  void run(float const* x, float const* logits, float* y, std::int64_t tokens);
  sida::StoreStats stats() const { return store_->stats(); }

 private:
  using Layer = sida::cuda::MoeLayer<sida::bf16, sida::TopKSoftmaxRouter>;

  Device& device_;
  Config config_;
  PoolMemory memory_;
  sida::cuda::PinnedMemory pinned_;
  std::shared_ptr<BlobSource const> source_;
  std::unique_ptr<sida::ExpertStore> host_;
  std::unique_ptr<sida::ExpertStore> store_;
  std::unique_ptr<Layer> layer_;
  sida::Buffer gemm_workspace_;
  std::unique_ptr<sida::cuda::Gemm> gemm_;
  sida::HostRouting routing_;
};

}  // namespace engine
