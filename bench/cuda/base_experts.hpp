#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "bench/cuda/device_timer.hpp"
#include "bench/cuda/random_bytes.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/cuda/device_tier.hpp"
#include "sida/cuda/gemm.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"
#include "sida/cuda/moe_layer.hpp"
#include "sida/io/expert_source.hpp"
#include "sida/store/expert_store.hpp"

namespace sida::bench {

/// Experts of switch-base's shape in bf16, made of random numbers: 9.4 MB each.
class BaseExperts final : public ExpertSource {
 public:
  static constexpr std::int64_t kModel = 768;
  static constexpr std::int64_t kHidden = 3072;

  explicit BaseExperts(std::vector<std::uint32_t> layers) : layers_(std::move(layers)) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> weight(-0.05F, 0.05F);
    for (auto& value : numbers_) value = to_bf16(weight(random));
  }
  static ExpertLayout layout() { return take(ExpertLayout::of({FfnKind::relu, Dtype::bf16, kModel, kHidden})); }
  std::span<std::uint32_t const> experts_per_layer() const noexcept override { return layers_; }
  std::size_t record_bytes(ExpertId) const noexcept override { return layout().size_bytes; }
  Status read(ExpertId id, std::span<std::byte> dst) const override {
    std::size_t const total = layout().size_bytes;
    std::size_t const some = numbers_.size() * sizeof(bf16);
    for (std::size_t at = 0; at < total; at += some) {  // from another number on for each expert
      std::size_t const shift = (std::size_t{id.expert} * 37 + std::size_t{id.layer} * 101) % 1000 * 2;
      std::size_t const bytes = std::min(some - shift, total - at);
      std::memcpy(dst.data() + at, reinterpret_cast<std::byte const*>(numbers_.data()) + shift, bytes);
    }
    return {};
  }

 private:
  std::vector<std::uint32_t> layers_;
  std::vector<bf16> numbers_ = std::vector<bf16>(1 << 20);
};

/// One layer of them, and what it is lent.
class BaseLayer {
 public:
  BaseLayer(std::vector<std::uint32_t> const& layers, std::uint32_t slots, PolicyKind policy)
      : source_(std::make_shared<BaseExperts>(layers)) {
    std::size_t const slot = slot_bytes_for(BaseExperts::layout().size_bytes);
    std::uint64_t experts = 0;
    for (auto const count : layers) experts += count;
    host_ = take(ExpertStore::open(*source_, make_host_tier(source_, pinned_, 8), {.budget_bytes = experts * slot}));
    // All experts into host memory, before anything is timed.
    for (std::uint32_t l = 0; l < layers.size(); ++l) {
      std::vector<ExpertId> ids;
      for (std::uint32_t e = 0; e < layers[l]; ++e) ids.push_back({l, e});
      static_cast<void>(take(host_->acquire(ids, StreamRef::host())));
    }
    store_ =
        take(ExpertStore::open(*source_, cuda::make_device_tier(*host_, device_),
                               {.budget_bytes = std::min<std::uint64_t>(slots, experts) * slot, .policy = policy}));
    experts_ = layers[0];
  }

  ExpertStore& store() { return *store_; }
  cudaStream_t stream() const { return stream_.get(); }

  void reserve(std::int64_t tokens) {
    x_ = take(Buffer::allocate(device_, static_cast<std::size_t>(tokens * BaseExperts::kModel) * 4, 256));
    y_ = take(Buffer::allocate(device_, static_cast<std::size_t>(tokens * BaseExperts::kModel) * 4, 256));
    auto const layer = layer_of(0);
    workspace_ = take(Buffer::allocate(device_, layer.workspace_bytes(tokens), 256));
    for (auto& lent : lent_) lent = take(Buffer::allocate(pinned_, layer.pinned_bytes(tokens)));
    fill_random_numbers(x_.bytes(), Dtype::f32, stream());
    must(stream_.synchronize());
  }

  /// Enqueues one step.
  void apply(std::uint32_t number, HostRouting& routing, PlanPosition position = {}) {
    std::int64_t const tokens = routing.view().tokens();
    auto layer = layer_of(number);
    Matrix<float const, Tier::device> const x(reinterpret_cast<float*>(x_.bytes().data()), tokens, BaseExperts::kModel);
    Matrix<float, Tier::device> const y(reinterpret_cast<float*>(y_.bytes().data()), tokens, BaseExperts::kModel);
    Buffer& lent = lent_[turn_++ % lent_.size()];
    must(layer.apply(x, routing.view(), y, false,
                     {.gemm = gemm_,
                      .stream = stream(),
                      .workspace = workspace_.bytes(),
                      .pinned = lent.bytes(),
                      .position = position}));
  }

 private:
  cuda::MoeLayer<bf16, SwitchRouter> layer_of(std::uint32_t number) {
    MoeShape const shape{number, experts_, 1, FfnKind::relu, BaseExperts::kModel, BaseExperts::kHidden};
    return {shape, *store_, SwitchRouter(CapacityRule::none, 0)};
  }

  std::shared_ptr<BaseExperts> source_;
  cuda::PinnedMemory pinned_;
  cuda::DeviceMemory device_;
  cuda::Stream stream_ = take(cuda::Stream::create());
  cuda::BlasHandle blas_ = take(cuda::BlasHandle::create());
  Buffer gemm_workspace_ = take(Buffer::allocate(device_, cuda::Gemm::kWorkspaceBytes, 256));
  cuda::Gemm gemm_{blas_.get(), gemm_workspace_.bytes()};
  std::unique_ptr<ExpertStore> host_;
  std::unique_ptr<ExpertStore> store_;
  std::uint32_t experts_ = 0;
  Buffer x_, y_, workspace_;
  std::array<Buffer, 64> lent_;  // more than steps in flight
  std::size_t turn_ = 0;
};

}  // namespace sida::bench
