#include "model/switch_state.hpp"

#include <string>

namespace sida::inline v0 {

SwitchEncoder::State::State() noexcept = default;
SwitchEncoder::State::State(State&&) noexcept = default;
SwitchEncoder::State& SwitchEncoder::State::operator=(State&&) noexcept = default;
SwitchEncoder::State::~State() = default;

std::int64_t SwitchEncoder::State::tokens() const noexcept {
  return impl_ == nullptr || impl_->turn == Impl::Turn::none ? 0 : impl_->batch.tokens;
}
std::int64_t SwitchEncoder::State::sequences() const noexcept {
  return impl_ == nullptr || impl_->turn == Impl::Turn::none ? 0 : impl_->batch.sequences();
}
Matrix<float const> SwitchEncoder::State::hidden() const noexcept {
  return impl_ == nullptr || impl_->turn != Impl::Turn::done ? Matrix<float const>() : impl_->batch.buffers->hidden;
}
Matrix<float const> SwitchEncoder::State::pooled() const noexcept {
  return impl_ == nullptr || impl_->turn != Impl::Turn::done ? Matrix<float const>() : impl_->batch.buffers->pooled;
}
Matrix<float const> SwitchEncoder::State::logits() const noexcept {
  return impl_ == nullptr || impl_->turn != Impl::Turn::done ? Matrix<float const>() : impl_->batch.buffers->logits;
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
