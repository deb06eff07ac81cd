#include "sida/model/switch_encoder.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "model/switch_ops.hpp"
#include "model/switch_state.hpp"
#include "model/switch_tensors.hpp"
#include "model/switch_weights.hpp"
#include "sida/detail/try.hpp"
#include "sida/layer/moe_layer.hpp"

namespace sida::inline v0 {
namespace {

using model_detail::activate;
using model_detail::add_to;
using model_detail::apply_tanh;
using model_detail::LinearBlock;
using model_detail::LinearJob;
using model_detail::rms_norm;
using model_detail::run_linear;
using model_detail::SwitchBlockWeights;

}  // namespace

struct SwitchEncoder::Impl {
  using StateImpl = State::Impl;
  using Turn = StateImpl::Turn;

  SwitchConfig config;
  SwitchOptions options;
  std::uint32_t moe_layers = 0;
  Dtype expert_dtype = Dtype::f32;
  model_detail::SwitchWeights weights;
  ExpertStore* store = nullptr;
  MemoryResource* memory = nullptr;

  /// Calls `f` with the MoE layer, which is no more than its options: one is made for each step.
  template <class F>
  auto with_moe_layer(std::uint32_t layer, F const& f) const {
    MoeShape const shape{layer,          config.num_experts, options.experts_per_token, config.activation,
                         config.d_model, config.d_ff};
    SwitchRouter const router(options.capacity_rule, options.expert_capacity.value_or(config.expert_capacity));
    switch (expert_dtype) {
      case Dtype::f16: {
        MoeLayer<fp16, Tier::host, SwitchRouter> moe(shape, *store, router, options.isa);
        return f(moe);
      }
      case Dtype::bf16: {
        MoeLayer<bf16, Tier::host, SwitchRouter> moe(shape, *store, router, options.isa);
        return f(moe);
      }
      case Dtype::f32: break;
    }
    MoeLayer<float, Tier::host, SwitchRouter> moe(shape, *store, router, options.isa);
    return f(moe);
  }

  Status check_options(SwitchCheckpoint const& checkpoint) const;
  Result<StateImpl*> at(State& state, Turn turn, std::uint32_t layer, std::string_view step) const;
  /// ids: checked before.
  void look_up(std::span<std::int32_t const> ids, Matrix<float> out) const;
  Status run_blocks(StateImpl& state, ThreadPool& pool, std::uint32_t last) const;
  Status run_attention(StateImpl& state, ThreadPool& pool, SwitchBlockWeights const& block) const;
  void run_dense_ffn(StateImpl& state, ThreadPool& pool, SwitchBlockWeights const& block) const;
  void run_head(StateImpl& state, ThreadPool& pool) const;
};

Status SwitchEncoder::Impl::check_options(SwitchCheckpoint const& checkpoint) const {
  if (options.expert_capacity.value_or(0) < 0) {
    return {Errc::invalid_argument, "expert capacity " + std::to_string(*options.expert_capacity)};
  }
  if (options.routing == SwitchRouting::router && options.experts_per_token != 1) {
    return {Errc::invalid_argument,
            "a Switch router chooses 1 expert per token, not " + std::to_string(options.experts_per_token)};
  }
  if (!is_runnable(options.isa)) {
    return {Errc::invalid_argument, "this processor does not run " + std::string(to_string(options.isa)) + " code"};
  }
  if (store->space() != Tier::host) return {Errc::invalid_argument, "the store's experts are not in host memory"};
  if (store->expert_count() != checkpoint.expert_count() || store->slot_bytes() < checkpoint.layout.size_bytes) {
    return {Errc::invalid_argument, "the store has " + std::to_string(store->expert_count()) + " experts in slots of " +
                                        std::to_string(store->slot_bytes()) + " bytes, but the checkpoint has " +
                                        std::to_string(checkpoint.expert_count()) + " of " +
                                        std::to_string(checkpoint.layout.size_bytes) + " bytes"};
  }
  for (std::uint32_t layer = 0; layer < moe_layers; ++layer) {
    SIDA_TRY(with_moe_layer(layer, [](auto const& moe) { return moe.can_implement(moe.shape()); }));
  }
  return {};
}

/// The state, when it holds a batch of this encoder and it is the step's turn.
Result<SwitchEncoder::State::Impl*> SwitchEncoder::Impl::at(State& state, Turn turn, std::uint32_t layer,
                                                            std::string_view step) const {
  StateImpl* const impl = state.impl_.get();
  std::string const what = "Switch encoder: " + std::string(step);
  if (impl == nullptr || impl->turn == Turn::none || impl->owner != this) {
    return Error(Errc::invalid_argument, what + " on a state without a batch of this encoder");
  }
  if (impl->turn == turn && impl->layer == layer) return impl;
  std::string next = "begin";
  if (impl->turn == Turn::moe) {
    next = "run_moe of MoE layer " + std::to_string(impl->layer);
  } else if (impl->turn == Turn::run_to) {
    next = impl->layer < moe_layers ? "run_to MoE layer " + std::to_string(impl->layer) : "finish";
  }
  bool const names_layer = step != "finish";
  return Error(Errc::invalid_argument,
               what + (names_layer ? " of MoE layer " + std::to_string(layer) : "") + " out of turn: next is " + next);
}

void SwitchEncoder::Impl::look_up(std::span<std::int32_t const> ids, Matrix<float> out) const {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    model_detail::widen_row(weights.embedding, ids[i], out.row(static_cast<std::int64_t>(i)));
  }
}

/// hidden += attention(norm(hidden))
Status SwitchEncoder::Impl::run_attention(StateImpl& state, ThreadPool& pool, SwitchBlockWeights const& block) const {
  model_detail::AttentionArgs args;
  args.isa = options.isa;
  args.q = state.q;
  args.k = state.k;
  args.v = state.v;
  args.context = state.context;
  args.offsets = state.offsets;
  args.position_bias = weights.position_bias;
  args.position_buckets = weights.position_buckets;
  args.heads = config.num_heads;
  args.d_kv = config.d_kv;
  args.buckets = config.relative_attention_num_buckets;
  args.max_distance = config.relative_attention_max_distance;
  args.longest = state.longest;
  std::int64_t const lanes = model_detail::attention_lanes(pool, args);
  SIDA_TRY_ASSIGN(float* const scratch,
                  state.reserve_scratch(model_detail::attention_scratch(lanes, args.d_kv, args.longest), *memory));

  rms_norm(pool, state.hidden, block.attention_norm, config.layer_norm_epsilon, state.normed);
  LinearJob const projections[] = {{block.q, state.q}, {block.k, state.k}, {block.v, state.v}};
  run_linear(pool, options.isa, state.normed, projections);
  model_detail::run_attention(pool, args, scratch);
  LinearJob const output[] = {{block.o, state.normed}};
  run_linear(pool, options.isa, state.context, output, [&](LinearBlock const& y) { add_to(state.hidden, y); });
  return {};
}

/// hidden += wo(act(wi(normed)))
void SwitchEncoder::Impl::run_dense_ffn(StateImpl& state, ThreadPool& pool, SwitchBlockWeights const& block) const {
  LinearJob const up[] = {{block.wi, state.inner}};
  run_linear(pool, options.isa, state.normed, up, [&](LinearBlock const& y) { activate(config.activation, y); });
  LinearJob const down[] = {{block.wo, state.normed}};
  run_linear(pool, options.isa, state.inner, down, [&](LinearBlock const& y) { add_to(state.hidden, y); });
}

/// Runs blocks up to `last`, without the MoE layer of the last one if that is sparse.
Status SwitchEncoder::Impl::run_blocks(StateImpl& state, ThreadPool& pool, std::uint32_t last) const {
  state.is_fresh = false;
  for (; state.block < last; ++state.block) {
    SwitchBlockWeights const& block = weights.blocks[state.block];
    SIDA_TRY(run_attention(state, pool, block));
    rms_norm(pool, state.hidden, block.ffn_norm, config.layer_norm_epsilon, state.normed);
    if (!config.is_sparse(state.block)) run_dense_ffn(state, pool, block);
  }
  return {};
}

/// logits = out_proj(tanh(dense(pooled)))
void SwitchEncoder::Impl::run_head(StateImpl& state, ThreadPool& pool) const {
  LinearJob const dense[] = {{weights.head_dense, state.head_hidden}};
  run_linear(pool, options.isa, state.pooled, dense, [&](LinearBlock const& y) {
    add_bias(weights.head_dense_bias, y);
    apply_tanh(y);
  });
  LinearJob const out[] = {{weights.head_out, state.logits}};
  run_linear(pool, options.isa, state.head_hidden, out,
             [&](LinearBlock const& y) { add_bias(weights.head_out_bias, y); });
}

SwitchEncoder::SwitchEncoder(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
SwitchEncoder::~SwitchEncoder() = default;

Result<std::unique_ptr<SwitchEncoder>> SwitchEncoder::load(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                                           SwitchOptions const& options, MemoryResource& memory) {
  auto impl = std::make_unique<Impl>();
  impl->config = checkpoint.config;
  impl->options = options;
  impl->moe_layers = checkpoint.config.moe_layers();
  impl->expert_dtype = checkpoint.layout.shape.dtype;
  impl->store = &store;
  impl->memory = &memory;
  SIDA_TRY(impl->check_options(checkpoint));
  SIDA_TRY_ASSIGN(auto tensors, model_detail::find_switch_tensors(checkpoint.config, *checkpoint.dense));
  if (options.routing == SwitchRouting::given) {
    for (auto& block : tensors.blocks) block.router = nullptr;  // never runs
  }
  SIDA_TRY_ASSIGN(impl->weights,
                  model_detail::load_switch_weights(checkpoint.config, tensors, *checkpoint.dense, memory));
  return std::unique_ptr<SwitchEncoder>(new SwitchEncoder(std::move(impl)));
}

SwitchConfig const& SwitchEncoder::config() const noexcept { return impl_->config; }
bool SwitchEncoder::has_head() const noexcept { return impl_->weights.has_head(); }
std::uint32_t SwitchEncoder::moe_layers() const noexcept { return impl_->moe_layers; }
std::size_t SwitchEncoder::dense_bytes() const noexcept { return impl_->weights.arena.size_bytes(); }

Status SwitchEncoder::embed(std::span<std::int32_t const> ids, Matrix<float> out) const {
  auto const& config = impl_->config;
  if (out.rows != std::ssize(ids) || out.cols != config.d_model || out.stride < out.cols) {
    return {Errc::invalid_argument, "Switch encoder: embeddings of " + std::to_string(ids.size()) + " ids into [" +
                                        std::to_string(out.rows) + ", " + std::to_string(out.cols) + "]"};
  }
  for (std::int32_t const id : ids) {
    if (id >= 0 && id < config.vocab_size) continue;
    return {Errc::invalid_argument,
            "Switch encoder: id " + std::to_string(id) + " of a vocabulary of " + std::to_string(config.vocab_size)};
  }
  impl_->look_up(ids, out);
  return {};
}

Status SwitchEncoder::begin(TokenBatch const& batch, State& state) const {
  if (state.impl_ == nullptr) state.impl_ = std::make_unique<State::Impl>();
  State::Impl& next = *state.impl_;
  next.turn = Impl::Turn::none;
  SIDA_TRY(model_detail::check_batch(batch, impl_->config.vocab_size));
  next.offsets = batch.sequence_offsets;
  next.tokens = batch.tokens();
  next.longest = 0;
  for (std::size_t i = 0; i + 1 < next.offsets.size(); ++i) {
    next.longest = std::max(next.longest, std::int64_t{next.offsets[i + 1]} - std::int64_t{next.offsets[i]});
  }
  std::size_t const moe_bytes =
      impl_->with_moe_layer(0, [&](auto const& moe) { return moe.workspace_bytes(next.tokens); });
  SIDA_TRY(next.reserve(impl_->config, impl_->options.experts_per_token, moe_bytes, *impl_->memory));
  impl_->look_up(batch.ids, next.hidden);
  next.owner = impl_.get();
  next.layer = 0;
  next.block = 0;
  next.is_fresh = true;
  next.turn = Impl::Turn::run_to;
  return {};
}

Matrix<float const> SwitchEncoder::embeddings(State& state) const noexcept {
  auto const* const now = state.impl_.get();
  bool const is_there = now != nullptr && now->turn == Impl::Turn::run_to && now->is_fresh;
  return is_there ? now->hidden : Matrix<float>();
}

Status SwitchEncoder::run_to(std::uint32_t layer, State& state, ThreadPool& pool) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::run_to, layer, "run_to"));
  if (layer >= impl_->moe_layers) {
    return {Errc::invalid_argument, "Switch encoder: no MoE layer " + std::to_string(layer)};
  }
  std::uint32_t sparse = now->block;
  while (!impl_->config.is_sparse(sparse)) ++sparse;
  SIDA_TRY(impl_->run_blocks(*now, pool, sparse + 1));
  auto const routing = now->routing.view();
  std::fill_n(routing.experts.data, now->tokens * routing.k(), kNoExpert);
  std::fill_n(routing.weights.data, now->tokens * routing.k(), 0.0F);
  now->turn = Impl::Turn::moe;
  return {};
}

Status SwitchEncoder::route(std::uint32_t layer, State& state, ThreadPool& pool) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::moe, layer, "route"));
  if (impl_->options.routing == SwitchRouting::given) {
    return {Errc::invalid_argument, "Switch encoder: route, but the routing is given"};
  }
  LinearJob const router[] = {{impl_->weights.blocks[now->block - 1].router, now->router_logits}};
  run_linear(pool, impl_->options.isa, now->normed, router);
  return impl_->with_moe_layer(
      layer, [&](auto const& moe) { return moe.route(now->router_logits, {now->offsets}, now->routing.view()); });
}

Routing<> SwitchEncoder::routing(State& state) const noexcept {
  return state.tokens() == 0 ? Routing<>() : state.impl_->routing.view();
}

Status SwitchEncoder::run_moe(std::uint32_t layer, State& state, ThreadPool& pool, PlanPosition position) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::moe, layer, "run_moe"));
  MoeContext const context{pool, now->moe_workspace, StreamRef::host(), position};
  SIDA_TRY(impl_->with_moe_layer(
      layer, [&](auto& moe) { return moe.apply(now->normed, now->routing.view(), now->moe_out, context); }));
  model_detail::add_rows(pool, now->moe_out, now->hidden);
  ++now->layer;
  now->turn = Impl::Turn::run_to;
  return {};
}

Status SwitchEncoder::finish(State& state, ThreadPool& pool) const {
  SIDA_TRY_ASSIGN(auto* const now, impl_->at(state, Impl::Turn::run_to, impl_->moe_layers, "finish"));
  SIDA_TRY(impl_->run_blocks(*now, pool, impl_->config.num_layers));
  rms_norm(pool, now->hidden, impl_->weights.final_norm, impl_->config.layer_norm_epsilon, now->normed);
  model_detail::mean_rows(pool, now->normed, now->offsets, now->pooled);
  if (has_head()) {
    impl_->run_head(*now, pool);
  } else {
    now->logits = Matrix<float>();
  }
  now->turn = Impl::Turn::done;
  return {};
}

}  // namespace sida::inline v0
