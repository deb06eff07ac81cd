#include <algorithm>
#include <string>
#include <utility>

#include "model/host_switch_buffers.hpp"
#include "model/switch_compute.hpp"
#include "model/switch_ops.hpp"
#include "model/switch_tensors.hpp"
#include "model/switch_weights.hpp"
#include "sida/detail/try.hpp"
#include "sida/layer/moe_layer.hpp"

namespace sida::inline v0::model_detail {
namespace {

class HostSwitch final : public SwitchCompute {
 public:
  HostSwitch(SwitchConfig const& config, SwitchOptions const& options, Dtype expert_dtype, ExpertStore& store,
             MemoryResource& memory)
      : config_(config), options_(options), expert_dtype_(expert_dtype), store_(store), memory_(memory) {}

  Status check() const;
  Status load(SwitchTensors const& tensors, TensorSource const& source) {
    SIDA_TRY_ASSIGN(weights_, load_switch_weights(config_, tensors, source, memory_));
    return {};
  }

  std::size_t dense_bytes() const noexcept override { return weights_.arena.size_bytes(); }
  bool has_head() const noexcept override { return weights_.has_head(); }
  void embed(std::span<std::int32_t const> ids, Matrix<float> out) const override {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      widen_row(weights_.embedding, ids[i], out.row(static_cast<std::int64_t>(i)));
    }
  }
  Status begin(SwitchBatch& batch) const override;
  Matrix<float const> embeddings(SwitchBatch& batch) const noexcept override { return of(batch).residual; }
  Status run_blocks(SwitchBatch& batch, ThreadPool& pool, std::uint32_t last) const override;
  Status route(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool) const override;
  Status run_moe(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool, PlanPosition position) const override;
  Status finish(SwitchBatch& batch, ThreadPool& pool) const override;

 private:
  static HostSwitchBuffers& of(SwitchBatch& batch) noexcept { return static_cast<HostSwitchBuffers&>(*batch.buffers); }

  /// Calls `f` with the MoE layer, which is no more than its options: one is made for each step.
  template <class F>
  auto with_moe_layer(std::uint32_t layer, F const& f) const {
    MoeShape const shape{layer,           config_.num_experts, options_.experts_per_token, config_.activation,
                         config_.d_model, config_.d_ff};
    SwitchRouter const router(options_.capacity_rule, options_.expert_capacity.value_or(config_.expert_capacity));
    return with_element(expert_dtype_, [&]<class T>(T) {
      MoeLayer<T, Tier::host, SwitchRouter> moe(shape, store_, router, options_.isa);
      return f(moe);
    });
  }

  /// normed = norm(residual), for products with weights of type `dtype`, if any
  LinearRows normalise(HostSwitchBuffers& at, ThreadPool& pool, float const* weight, Dtype dtype = Dtype::f32) const;
  Status run_attention(SwitchBatch& batch, ThreadPool& pool, SwitchBlockWeights const& block) const;
  void run_dense_ffn(HostSwitchBuffers& at, ThreadPool& pool, SwitchBlockWeights const& block) const;
  void run_head(HostSwitchBuffers& at, ThreadPool& pool) const;

  SwitchConfig config_;
  SwitchOptions options_;
  Dtype expert_dtype_;
  ExpertStore& store_;
  MemoryResource& memory_;
  SwitchWeights weights_;
};

Status HostSwitch::check() const {
  if (!is_runnable(options_.isa)) {
    return {Errc::invalid_argument, "this processor does not run " + std::string(to_string(options_.isa)) + " code"};
  }
  if (store_.space() != Tier::host) return {Errc::invalid_argument, "the store's experts are not in host memory"};
  for (std::uint32_t layer = 0; layer < config_.moe_layers(); ++layer) {
    SIDA_TRY(with_moe_layer(layer, [](auto const& moe) { return moe.can_implement(moe.shape()); }));
  }
  return {};
}

Status HostSwitch::begin(SwitchBatch& batch) const {
  if (batch.buffers == nullptr) batch.buffers = std::make_unique<HostSwitchBuffers>();
  std::size_t const moe_bytes = with_moe_layer(0, [&](auto const& moe) { return moe.workspace_bytes(batch.tokens); });
  SIDA_TRY(of(batch).reserve(config_, batch, moe_bytes, memory_));
  embed(batch.ids, of(batch).residual);
  return {};
}

LinearRows HostSwitch::normalise(HostSwitchBuffers& at, ThreadPool& pool, float const* weight, Dtype dtype) const {
  return make_rows(pool, options_.isa, dtype, at.normed, at.packed, [&](std::int64_t first, std::int64_t count) {
    rms_norm(at.residual.row_range(first, count), weight, config_.layer_norm_epsilon,
             at.normed.row_range(first, count));
  });
}

/// residual += attention(norm(residual))
Status HostSwitch::run_attention(SwitchBatch& batch, ThreadPool& pool, SwitchBlockWeights const& block) const {
  HostSwitchBuffers& at = of(batch);
  AttentionArgs args;
  args.isa = options_.isa;
  args.q = at.q;
  args.k = at.k;
  args.v = at.v;
  args.context = at.context;
  args.offsets = batch.offsets;
  args.position_bias = weights_.position_bias;
  args.position_buckets = weights_.position_buckets;
  args.heads = config_.num_heads;
  args.d_kv = config_.d_kv;
  args.buckets = config_.relative_attention_num_buckets;
  args.max_distance = config_.relative_attention_max_distance;
  args.longest = batch.longest;
  args.stop = options_.stop;
  std::int64_t const lanes = attention_lanes(pool, args);
  SIDA_TRY_ASSIGN(float* const scratch, at.reserve_scratch(attention_scratch(lanes, args.d_kv, args.longest), memory_));

  LinearRows const x = normalise(at, pool, block.attention_norm, block.q.dtype);
  LinearJob const projections[] = {{block.q, at.q}, {block.k, at.k}, {block.v, at.v}};
  run_linear(pool, options_.isa, x, projections);
  model_detail::run_attention(pool, args, scratch);
  LinearJob const output[] = {{block.o, at.residual, true}};
  run_linear(pool, options_.isa, pack_rows(pool, options_.isa, block.o.dtype, at.context, at.packed), output);
  return {};
}

/// residual += wo(act(wi(norm(residual))))
void HostSwitch::run_dense_ffn(HostSwitchBuffers& at, ThreadPool& pool, SwitchBlockWeights const& block) const {
  LinearJob const up = {block.wi, at.inner};
  LinearRows const x = normalise(at, pool, block.ffn_norm, block.wi.dtype);
  PackedRows const packing = {options_.isa, block.wo.dtype, at.inner.cols};
  if (config_.activation == FfnKind::relu && x.packed != nullptr && packs_relu(packing)) {
    run_linear_relu_pack(pool, x, up, packing, at.packed_inner);
  } else {
    run_linear(pool, options_.isa, x, {&up, 1}, [&](LinearBlock const& y) {
      activate(config_.activation, y);
      if (!packing.is_needed()) return;
      packing.pack(y.y.data, y.y.stride, y.y.rows, y.first_col, y.y.cols, at.packed_inner + packing.bytes(y.first_row));
    });
  }
  LinearJob const down[] = {{block.wo, at.residual, true}};
  run_linear(pool, options_.isa, {at.inner, packing.is_needed() ? at.packed_inner : nullptr}, down);
}

Status HostSwitch::run_blocks(SwitchBatch& batch, ThreadPool& pool, std::uint32_t last) const {
  HostSwitchBuffers& at = of(batch);
  for (; batch.block < last; ++batch.block) {
    SwitchBlockWeights const& block = weights_.blocks[batch.block];
    SIDA_TRY(run_attention(batch, pool, block));
    if (config_.is_sparse(batch.block)) {
      normalise(at, pool, block.ffn_norm);
    } else {
      run_dense_ffn(at, pool, block);
    }
  }
  return {};
}

Status HostSwitch::route(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool) const {
  HostSwitchBuffers& at = of(batch);
  LinearJob const router[] = {{weights_.blocks[batch.block - 1].router, at.router_logits}};
  run_linear(pool, options_.isa, at.normed, router);
  return with_moe_layer(
      layer, [&](auto const& moe) { return moe.route(at.router_logits, {batch.offsets}, batch.routing.view()); });
}

Status HostSwitch::run_moe(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool, PlanPosition position) const {
  HostSwitchBuffers& at = of(batch);
  MoeContext const context{pool, at.moe_workspace, StreamRef::host(), position};
  SIDA_TRY(with_moe_layer(layer,
                          [&](auto& moe) { return moe.apply(at.normed, batch.routing.view(), at.moe_out, context); }));
  add_rows(pool, at.moe_out, at.residual);
  return {};
}

Status HostSwitch::finish(SwitchBatch& batch, ThreadPool& pool) const {
  HostSwitchBuffers& at = of(batch);
  normalise(at, pool, weights_.final_norm);
  mean_rows(pool, at.normed, batch.offsets, at.means);
  if (has_head()) run_head(at, pool);
  at.hidden = at.normed;
  at.pooled = at.means;
  at.logits = has_head() ? at.head_out : Matrix<float>();
  return {};
}

/// head_out = out_proj(tanh(dense(means)))
void HostSwitch::run_head(HostSwitchBuffers& at, ThreadPool& pool) const {
  LinearJob const dense[] = {{weights_.head_dense, at.head_hidden}};
  run_linear(pool, options_.isa, at.means, dense, [&](LinearBlock const& y) {
    add_bias(weights_.head_dense_bias, y);
    apply_tanh(y);
  });
  LinearJob const out[] = {{weights_.head_out, at.head_out}};
  run_linear(pool, options_.isa, at.head_hidden, out,
             [&](LinearBlock const& y) { add_bias(weights_.head_out_bias, y); });
}

}  // namespace

Result<std::unique_ptr<SwitchCompute>> make_host_switch(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                                        SwitchOptions const& options, MemoryResource& memory) {
  auto compute = std::make_unique<HostSwitch>(checkpoint.config, options, checkpoint.layout.shape.dtype, store, memory);
  SIDA_TRY(compute->check());
  SIDA_TRY_ASSIGN(auto tensors, find_switch_tensors(checkpoint.config, *checkpoint.dense));
  if (options.routing == SwitchRouting::given) tensors.forget_routers();
  SIDA_TRY(compute->load(tensors, *checkpoint.dense));
  return std::unique_ptr<SwitchCompute>(std::move(compute));
}

}  // namespace sida::inline v0::model_detail
