#include "model/host_switch_buffers.hpp"

#include <algorithm>

#include "sida/detail/try.hpp"
#include "sida/kernels/cpu.hpp"

namespace sida::inline v0::model_detail {

std::size_t HostSwitchBuffers::carve(SwitchConfig const& config, SwitchBatch const& batch,
                                     std::size_t moe_workspace_bytes, Workspace place) {
  auto const matrix = [](Workspace& from, std::int64_t rows, std::int64_t cols) {
    return Matrix<float>(from.take<float>(rows * cols), rows, cols);
  };
  std::int64_t const tokens = batch.tokens;
  auto const packed_rows = [&](Workspace& from, std::int64_t cols) {
    PackedRows const largest = {best_cpu_isa(), Dtype::bf16, cols};
    return from.take<std::byte>(static_cast<std::int64_t>(largest.bytes(tokens)));
  };
  residual = matrix(place, tokens, config.d_model);
  normed = matrix(place, tokens, config.d_model);
  means = matrix(place, batch.sequences(), config.d_model);
  head_hidden = matrix(place, batch.sequences(), config.d_model);
  head_out = matrix(place, batch.sequences(), config.num_labels);
  packed = packed_rows(place, std::max(config.d_model, config.inner_dim()));

  Workspace attention = place;
  q = matrix(attention, tokens, config.inner_dim());
  k = matrix(attention, tokens, config.inner_dim());
  v = matrix(attention, tokens, config.inner_dim());
  context = matrix(attention, tokens, config.inner_dim());
  Workspace dense = place;
  inner = matrix(dense, tokens, config.d_ff);
  packed_inner = packed_rows(dense, config.d_ff);
  Workspace moe = place;
  router_logits = matrix(moe, tokens, config.num_experts);
  moe_out = matrix(moe, tokens, config.d_model);
  moe_workspace = {moe.take<std::byte>(static_cast<std::int64_t>(moe_workspace_bytes)), moe_workspace_bytes};
  return std::max({attention.used_bytes(), dense.used_bytes(), moe.used_bytes()});
}

Status HostSwitchBuffers::reserve(SwitchConfig const& config, SwitchBatch const& batch, std::size_t moe_workspace_bytes,
                                  MemoryResource& memory) {
  std::size_t const bytes = carve(config, batch, moe_workspace_bytes, Workspace());
  SIDA_TRY(buffer_.reserve(memory, bytes, Workspace::kAlignment, "matrices of a batch"));
  carve(config, batch, moe_workspace_bytes, Workspace(buffer_.bytes()));
  return {};
}

Result<float*> HostSwitchBuffers::reserve_scratch(std::int64_t floats, MemoryResource& memory) {
  std::size_t const bytes = static_cast<std::size_t>(floats) * sizeof(float);
  SIDA_TRY(scratch_.reserve(memory, bytes, Workspace::kAlignment, "scratch of attention"));
  return reinterpret_cast<float*>(scratch_.bytes().data());
}

}  // namespace sida::inline v0::model_detail
