#include "offload.hpp"

#include <utility>

namespace engine {
namespace {

template <class T>
T value_of(sida::Result<T> result) {
  if (!result) fail(result.message().c_str());
  return *std::move(result);
}
void must(sida::Status const& status) {
  if (!status) fail(status.message().c_str());
}

}  // namespace

OffloadedBlock::OffloadedBlock(Device& device, BlobFile const& file, Config const& config, std::uint32_t slots)
    : device_(device), config_(config), memory_(device.pool), source_(std::make_shared<BlobSource>(file, config)) {
  std::size_t const slot = sida::slot_bytes_for(source_->layout().size_bytes);
  host_ = value_of(
      sida::ExpertStore::open(*source_, sida::make_host_tier(source_, pinned_, 2), {.budget_bytes = 2 * slots * slot}));
  store_ = value_of(
      sida::ExpertStore::open(*source_, sida::cuda::make_device_tier(*host_, memory_), {.budget_bytes = slots * slot}));
  sida::MoeShape const shape{0, config.experts, config.top_k, sida::FfnKind::swiglu, config.d_model, config.d_ff};
  layer_ = std::make_unique<Layer>(
      shape, *store_, sida::TopKSoftmaxRouter(config.top_k, sida::TopKSoftmaxRouter::Weights::renormalised));
  gemm_workspace_ = value_of(sida::Buffer::allocate(memory_, sida::cuda::Gemm::kWorkspaceBytes, 256));
  gemm_ = std::make_unique<sida::cuda::Gemm>(device.blas, gemm_workspace_.bytes());
}

void OffloadedBlock::run(float const* x, float const* logits, float* y, std::int64_t tokens) {
  // An engine would keep these two from step to step.
  sida::Buffer workspace = value_of(sida::Buffer::allocate(memory_, layer_->workspace_bytes(tokens), 256));
  sida::Buffer pinned = value_of(sida::Buffer::allocate(pinned_, layer_->pinned_bytes(tokens)));
  sida::cuda::MoeContext const context{
      .gemm = *gemm_, .stream = device_.stream, .workspace = workspace.bytes(), .pinned = pinned.bytes()};
  routing_.resize(tokens, config_.top_k);
  must(layer_->route({logits, tokens, config_.experts}, {}, routing_.view(), context));
  must(layer_->apply({x, tokens, config_.d_model}, routing_.view(), {y, tokens, config_.d_model}, false, context));
  engine::must(cudaStreamSynchronize(device_.stream));  // before the two buffers go
}

}  // namespace engine
