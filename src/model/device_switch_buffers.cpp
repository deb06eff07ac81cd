#include "model/device_switch_buffers.hpp"

#include <algorithm>
#include <cuda_runtime.h>

#include "cuda/element_rows.hpp"

#include "sida/detail/try.hpp"

namespace sida::inline v0::model_detail {
namespace {

/// Room for rows of any element type.
Narrow take_narrow(Workspace& place, std::int64_t rows, std::int64_t cols) {
  return {place.take<std::byte>(rows * cuda::row_bytes(Dtype::f32, cols)), cols};
}

}  // namespace

std::size_t DeviceSwitchBuffers::carve_device(SwitchConfig const& config, SwitchBatch const& batch,
                                              DeviceSwitchSizes const& sizes, Workspace place) {
  std::int64_t const tokens = batch.tokens;
  std::int64_t const sequences = batch.sequences();
  ids = place.take<std::int32_t>(tokens);
  offsets = place.take<std::uint32_t>(sequences + 1);
  residual = place.take<float>(tokens * config.d_model);
  normed = place.take<float>(tokens * config.d_model);
  narrow = take_narrow(place, tokens, config.d_model);  // there are no more sequences than tokens
  means = place.take<float>(sequences * config.d_model);
  head_hidden = place.take<float>(sequences * config.d_model);
  head_out = place.take<float>(sequences * config.num_labels);

  Workspace attention = place;
  q = attention.take<float>(tokens * config.inner_dim());
  k = attention.take<float>(tokens * config.inner_dim());
  v = attention.take<float>(tokens * config.inner_dim());
  context = take_narrow(attention, tokens, config.inner_dim());
  Workspace dense = place;
  wide = dense.take<float>(tokens * config.d_ff);
  inner = take_narrow(dense, tokens, config.d_ff);
  Workspace moe = place;
  router_logits = moe.take<float>(tokens * config.num_experts);
  moe_workspace = {moe.take<std::byte>(static_cast<std::int64_t>(sizes.moe_workspace_bytes)),
                   sizes.moe_workspace_bytes};
  return std::max({attention.used_bytes(), dense.used_bytes(), moe.used_bytes()});
}

std::size_t DeviceSwitchBuffers::carve_pinned(SwitchConfig const& config, SwitchBatch const& batch,
                                              DeviceSwitchSizes const& sizes, Workspace place) {
  ids_there = place.take<std::int32_t>(batch.tokens);
  offsets_there = place.take<std::uint32_t>(batch.sequences() + 1);
  hidden_there = place.take<float>(sizes.outputs_hidden ? batch.tokens * config.d_model : 0);
  pooled_there = place.take<float>(batch.sequences() * config.d_model);
  logits_there = place.take<float>(batch.sequences() * config.num_labels);
  moe_pinned.resize(sizes.moe_layers);
  for (auto& of_layer : moe_pinned) {
    of_layer = {place.take<std::byte>(static_cast<std::int64_t>(sizes.moe_pinned_bytes)), sizes.moe_pinned_bytes};
  }
  return place.used_bytes();
}

Status DeviceSwitchBuffers::reserve(SwitchConfig const& config, SwitchBatch const& batch,
                                    DeviceSwitchSizes const& sizes) {
  wait();
  if (!gemm) {
    SIDA_TRY(gemm_workspace_.reserve(resources.device, cuda::Gemm::kWorkspaceBytes, 256, "cuBLAS's workspace"));
    gemm.emplace(resources.blas, gemm_workspace_.bytes());
  }
  SIDA_TRY(
      device_.reserve(resources.device, carve_device(config, batch, sizes, Workspace()), 256, "matrices of a batch"));
  SIDA_TRY(pinned_.reserve(resources.pinned, carve_pinned(config, batch, sizes, Workspace()), Workspace::kAlignment,
                           "what a batch copies to and from the device"));
  carve_device(config, batch, sizes, Workspace(device_.bytes()));
  carve_pinned(config, batch, sizes, Workspace(pinned_.bytes()));
  return {};
}

void DeviceSwitchBuffers::wait() noexcept {
  if (is_running) static_cast<void>(cudaStreamSynchronize(resources.stream));
  is_running = false;
}

}  // namespace sida::inline v0::model_detail
