#include "sida/model/switch_encoder.hpp"

#include <algorithm>
#include <atomic>
#include <string>
#include <string_view>
#include <utility>

#include "model/stopping_pool.hpp"
#include "model/switch_compute.hpp"
#include "model/switch_state.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0 {
namespace {

/// Unlike an address, never used again. 0 is nobody's.
std::uint64_t next_encoder_number() noexcept {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

struct SwitchEncoder::Impl {
  using StateImpl = State::Impl;
  using Turn = StateImpl::Turn;

  std::uint64_t number = next_encoder_number();
  SwitchConfig config;
  SwitchOptions options;
  std::unique_ptr<model_detail::SwitchCompute> compute;

  Result<StateImpl*> at(State& state, Turn turn, std::uint32_t layer, std::string_view step) const;
  template <class Step>
  Status run(StateImpl& now, ThreadPool& pool, Step const& step) const;
};

/// The state, when it holds a batch of this encoder and it is the step's turn.
Result<SwitchEncoder::State::Impl*> SwitchEncoder::Impl::at(State& state, Turn turn, std::uint32_t layer,
                                                            std::string_view step) const {
  StateImpl* const impl = state.impl_.get();
  std::string const what = "Switch encoder: " + std::string(step);
  if (impl == nullptr || impl->turn == Turn::none || impl->owner != number) {
    return Error(Errc::invalid_argument, what + " on a state without a batch of this encoder");
  }
  if (impl->turn == turn && impl->layer == layer) return impl;
  std::string next = "begin";
  if (impl->turn == Turn::moe) {
    next = "run_moe of MoE layer " + std::to_string(impl->layer);
  } else if (impl->turn == Turn::run_to) {
    next = impl->layer < config.moe_layers() ? "run_to MoE layer " + std::to_string(impl->layer) : "finish";
  }
  bool const names_layer = step != "finish";
  return Error(Errc::invalid_argument,
               what + (names_layer ? " of MoE layer " + std::to_string(layer) : "") + " out of turn: next is " + next);
}

/// Runs `step` on the pool's threads. A batch that was stopped halfway is no batch any more, and neither is one whose
/// blocks failed: they add to what they read.
template <class Step>
Status SwitchEncoder::Impl::run(StateImpl& now, ThreadPool& pool, Step const& step) const {
  model_detail::StoppingPool stopping(pool, options.stop);
  Status status = step(stopping);
  bool const is_stopped = options.stop.stop_requested();
  if (is_stopped || (!status && now.turn == Turn::run_to)) now.turn = Turn::none;
  return is_stopped ? Status(Errc::cancelled, "Switch encoder: stopped") : std::move(status);
}

SwitchEncoder::SwitchEncoder(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
SwitchEncoder::~SwitchEncoder() = default;

namespace model_detail {

Status SwitchEncoderAccess::check_options(SwitchCheckpoint const& checkpoint, ExpertStore const& store,
                                          SwitchOptions const& options) {
  if (options.expert_capacity.value_or(0) < 0) {
    return {Errc::invalid_argument, "expert capacity " + std::to_string(*options.expert_capacity)};
  }
  if (options.routing == SwitchRouting::router && options.experts_per_token != 1) {
    return {Errc::invalid_argument,
            "a Switch router chooses 1 expert per token, not " + std::to_string(options.experts_per_token)};
  }
  if (store.expert_count() != checkpoint.expert_count() || store.slot_bytes() < checkpoint.layout.size_bytes) {
    return {Errc::invalid_argument, "the store has " + std::to_string(store.expert_count()) + " experts in slots of " +
                                        std::to_string(store.slot_bytes()) + " bytes, but the checkpoint has " +
                                        std::to_string(checkpoint.expert_count()) + " of " +
                                        std::to_string(checkpoint.layout.size_bytes) + " bytes"};
  }
  return {};
}

std::unique_ptr<SwitchEncoder> SwitchEncoderAccess::make(SwitchConfig const& config, SwitchOptions const& options,
                                                         std::unique_ptr<SwitchCompute> compute) {
  auto impl = std::make_unique<SwitchEncoder::Impl>();
  impl->config = config;
  impl->options = options;
  impl->compute = std::move(compute);
  return std::unique_ptr<SwitchEncoder>(new SwitchEncoder(std::move(impl)));
}

}  // namespace model_detail

Result<std::unique_ptr<SwitchEncoder>> SwitchEncoder::load(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                                           SwitchOptions const& options, MemoryResource& memory) {
  using Access = model_detail::SwitchEncoderAccess;
  SIDA_TRY(Access::check_options(checkpoint, store, options));
  SIDA_TRY_ASSIGN(auto compute, model_detail::make_host_switch(checkpoint, store, options, memory));
  return Access::make(checkpoint.config, options, std::move(compute));
}

SwitchConfig const& SwitchEncoder::config() const noexcept { return impl_->config; }
bool SwitchEncoder::has_head() const noexcept { return impl_->compute->has_head(); }
std::uint32_t SwitchEncoder::moe_layers() const noexcept { return impl_->config.moe_layers(); }
std::size_t SwitchEncoder::dense_bytes() const noexcept { return impl_->compute->dense_bytes(); }

Status SwitchEncoder::embed(std::span<std::int32_t const> ids, Matrix<float> out) const {
  SwitchConfig const& config = impl_->config;
  if (out.rows != std::ssize(ids) || out.cols != config.d_model || out.stride < out.cols) {
    return {Errc::invalid_argument, "Switch encoder: embeddings of " + std::to_string(ids.size()) + " ids into [" +
                                        std::to_string(out.rows) + ", " + std::to_string(out.cols) + "]"};
  }
  for (std::int32_t const id : ids) {
    if (id >= 0 && id < config.vocab_size) continue;
    return {Errc::invalid_argument,
            "Switch encoder: id " + std::to_string(id) + " of a vocabulary of " + std::to_string(config.vocab_size)};
  }
  impl_->compute->embed(ids, out);
  return {};
}

Status SwitchEncoder::begin(TokenBatch const& batch, State& state) const {
  if (state.impl_ == nullptr) state.impl_ = std::make_unique<State::Impl>();
  State::Impl& next = *state.impl_;
  next.turn = Impl::Turn::none;
  if (next.owner != impl_->number) next.batch.buffers.reset();  // another encoder's may be of other memory
  SIDA_TRY(model_detail::check_batch(batch, impl_->config.vocab_size));
  auto& offsets = next.batch.offsets;
  next.batch.ids = batch.ids;
  offsets = batch.sequence_offsets;
  next.batch.tokens = batch.tokens();
  next.batch.longest = 0;
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    next.batch.longest = std::max(next.batch.longest, std::int64_t{offsets[i + 1]} - std::int64_t{offsets[i]});
  }
  next.batch.block = 0;
  next.batch.routing.resize(next.batch.tokens, impl_->options.experts_per_token);
  next.owner = impl_->number;
  SIDA_TRY(impl_->compute->begin(next.batch));
  next.layer = 0;
  next.is_fresh = true;
  next.turn = Impl::Turn::run_to;
  return {};
}

Matrix<float const> SwitchEncoder::embeddings(State& state) const noexcept {
  auto* const now = state.impl_.get();
  bool const is_there = now != nullptr && now->turn == Impl::Turn::run_to && now->is_fresh;
  return is_there ? impl_->compute->embeddings(now->batch) : Matrix<float const>();
}

Status SwitchEncoder::run_to(std::uint32_t layer, State& state, ThreadPool& pool) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::run_to, layer, "run_to"));
  if (layer >= moe_layers()) {
    return {Errc::invalid_argument, "Switch encoder: no MoE layer " + std::to_string(layer)};
  }
  std::uint32_t sparse = now->batch.block;
  while (!impl_->config.is_sparse(sparse)) ++sparse;
  now->is_fresh = false;
  SIDA_TRY(impl_->run(
      *now, pool, [&](ThreadPool& stopping) { return impl_->compute->run_blocks(now->batch, stopping, sparse + 1); }));
  auto const routing = now->batch.routing.view();
  std::fill_n(routing.experts.data, now->batch.tokens * routing.k(), kNoExpert);
  std::fill_n(routing.weights.data, now->batch.tokens * routing.k(), 0.0F);
  now->turn = Impl::Turn::moe;
  return {};
}

Status SwitchEncoder::route(std::uint32_t layer, State& state, ThreadPool& pool) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::moe, layer, "route"));
  if (impl_->options.routing == SwitchRouting::given) {
    return {Errc::invalid_argument, "Switch encoder: route, but the routing is given"};
  }
  return impl_->run(*now, pool,
                    [&](ThreadPool& stopping) { return impl_->compute->route(layer, now->batch, stopping); });
}

Routing<> SwitchEncoder::routing(State& state) const noexcept {
  return state.tokens() == 0 ? Routing<>() : state.impl_->batch.routing.view();
}

Status SwitchEncoder::run_moe(std::uint32_t layer, State& state, ThreadPool& pool, PlanPosition position) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::moe, layer, "run_moe"));
  SIDA_TRY(impl_->run(*now, pool, [&](ThreadPool& stopping) {
    return impl_->compute->run_moe(layer, now->batch, stopping, position);
  }));
  ++now->layer;
  now->turn = Impl::Turn::run_to;
  return {};
}

Status SwitchEncoder::finish(State& state, ThreadPool& pool) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::run_to, moe_layers(), "finish"));
  now->is_fresh = false;
  auto const rest = [&](ThreadPool& stopping) -> Status {
    SIDA_TRY(impl_->compute->run_blocks(now->batch, stopping, impl_->config.num_layers));
    return impl_->compute->finish(now->batch, stopping);
  };
  SIDA_TRY(impl_->run(*now, pool, rest));
  now->turn = Impl::Turn::done;
  return {};
}

}  // namespace sida::inline v0
