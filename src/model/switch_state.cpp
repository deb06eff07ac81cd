#include "model/switch_state.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "sida/detail/try.hpp"

namespace sida::inline v0 {

std::size_t SwitchEncoder::State::Impl::carve(SwitchConfig const& config, std::size_t moe_workspace_bytes,
                                              Workspace place) {
  auto const matrix = [](Workspace& from, std::int64_t rows, std::int64_t cols) {
    return Matrix<float>(from.take<float>(rows * cols), rows, cols);
  };
  hidden = matrix(place, tokens, config.d_model);
  normed = matrix(place, tokens, config.d_model);
  pooled = matrix(place, sequences(), config.d_model);
  head_hidden = matrix(place, sequences(), config.d_model);
  logits = matrix(place, sequences(), config.num_labels);

  Workspace attention = place;
  q = matrix(attention, tokens, config.inner_dim());
  k = matrix(attention, tokens, config.inner_dim());
  v = matrix(attention, tokens, config.inner_dim());
  context = matrix(attention, tokens, config.inner_dim());
  Workspace dense = place;
  inner = matrix(dense, tokens, config.d_ff);
  Workspace moe = place;
  router_logits = matrix(moe, tokens, config.num_experts);
  moe_out = matrix(moe, tokens, config.d_model);
  moe_workspace = {moe.take<std::byte>(static_cast<std::int64_t>(moe_workspace_bytes)), moe_workspace_bytes};
  return std::max({attention.used_bytes(), dense.used_bytes(), moe.used_bytes()});
}

Status SwitchEncoder::State::Impl::reserve(SwitchConfig const& config, std::int64_t experts_per_token,
                                           std::size_t moe_workspace_bytes, MemoryResource& memory) {
  std::size_t const bytes = carve(config, moe_workspace_bytes, Workspace());
  if (buffer_.size_bytes() < bytes) {
    buffer_ = Buffer();  // first, so that old and new are never there together
    SIDA_TRY_ASSIGN(buffer_, Buffer::allocate(memory, bytes, Workspace::kAlignment));
  }
  carve(config, moe_workspace_bytes, Workspace(buffer_.bytes()));
  routing.resize(tokens, experts_per_token);
  return {};
}

Result<float*> SwitchEncoder::State::Impl::reserve_scratch(std::int64_t floats, MemoryResource& memory) {
  std::size_t const bytes = static_cast<std::size_t>(floats) * sizeof(float);
  if (scratch_.size_bytes() < bytes) {
    scratch_ = Buffer();
    SIDA_TRY_ASSIGN(scratch_, Buffer::allocate(memory, bytes, Workspace::kAlignment));
  }
  return reinterpret_cast<float*>(scratch_.bytes().data());
}

SwitchEncoder::State::State() noexcept = default;
SwitchEncoder::State::State(State&&) noexcept = default;
SwitchEncoder::State& SwitchEncoder::State::operator=(State&&) noexcept = default;
SwitchEncoder::State::~State() = default;

std::int64_t SwitchEncoder::State::tokens() const noexcept {
  return impl_ == nullptr || impl_->turn == Impl::Turn::none ? 0 : impl_->tokens;
}
std::int64_t SwitchEncoder::State::sequences() const noexcept {
  return impl_ == nullptr || impl_->turn == Impl::Turn::none ? 0 : impl_->sequences();
}
Matrix<float const> SwitchEncoder::State::hidden() const noexcept {
  return impl_ == nullptr || impl_->turn != Impl::Turn::done ? Matrix<float>() : impl_->normed;
}
Matrix<float const> SwitchEncoder::State::pooled() const noexcept {
  return impl_ == nullptr || impl_->turn != Impl::Turn::done ? Matrix<float>() : impl_->pooled;
}
Matrix<float const> SwitchEncoder::State::logits() const noexcept {
  return impl_ == nullptr || impl_->turn != Impl::Turn::done ? Matrix<float>() : impl_->logits;
}

namespace model_detail {

Status check_batch(TokenBatch const& batch, std::int64_t vocab_size) {
  auto const error = [&batch](std::string const& why) {
    return Error(Errc::invalid_argument, "batch " + std::to_string(batch.number) + ": " + why);
  };
  auto const& offsets = batch.sequence_offsets;
  if (offsets.size() < 2) return error("no sequences");
  if (offsets.front() != 0 || offsets.back() != batch.ids.size()) {
    return error("sequence offsets run from " + std::to_string(offsets.front()) + " to " +
                 std::to_string(offsets.back()) + ", not from 0 to " + std::to_string(batch.ids.size()));
  }
  for (std::size_t sequence = 0; sequence + 1 < offsets.size(); ++sequence) {
    if (offsets[sequence + 1] == offsets[sequence]) {
      return error("sequence " + std::to_string(sequence) + " is empty");
    }
    if (offsets[sequence + 1] < offsets[sequence]) {
      return error("sequence " + std::to_string(sequence) + " ends before it begins");
    }
  }
  for (std::size_t token = 0; token < batch.ids.size(); ++token) {
    if (batch.ids[token] < 0 || batch.ids[token] >= vocab_size) {
      return error("token " + std::to_string(token) + " has id " + std::to_string(batch.ids[token]) +
                   ", not within 0 and " + std::to_string(vocab_size - 1));
    }
  }
  return {};
}

}  // namespace model_detail
}  // namespace sida::inline v0
