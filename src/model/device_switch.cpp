#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "cuda/element_rows.hpp"

#include "dense/linear.hpp"
#include "kernels/cuda/kernels.hpp"
#include "model/device_switch_buffers.hpp"
#include "model/device_switch_weights.hpp"
#include "model/switch_compute.hpp"
#include "model/switch_tensors.hpp"
#include "sida/cuda/error.hpp"
#include "sida/cuda/moe_layer.hpp"
#include "sida/cuda/switch_encoder.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::model_detail {
namespace {

using cuda::check;
namespace kernels = cuda::kernels;

class DeviceSwitch final : public SwitchCompute {
 public:
  DeviceSwitch(SwitchCheckpoint const& checkpoint, SwitchOptions const& options, ExpertStore& store,
               cuda::SwitchResources const& resources)
      : config_(checkpoint.config),
        options_(options),
        expert_dtype_(checkpoint.layout.shape.dtype),
        store_(store),
        resources_(resources) {}
  /// A batch that was left half way reads the weights.
  ~DeviceSwitch() override { static_cast<void>(cudaStreamSynchronize(resources_.stream)); }
  DeviceSwitch(DeviceSwitch const&) = delete;
  DeviceSwitch& operator=(DeviceSwitch const&) = delete;

  Status check_store() const;
  Status load(SwitchTensors const& tensors, TensorSource const& source) {
    SIDA_TRY_ASSIGN(weights_, load_device_switch_weights(config_, tensors, source, resources_.device, resources_.host,
                                                         resources_.stream));
    return {};
  }

  std::size_t dense_bytes() const noexcept override { return weights_.device_bytes(); }
  bool has_head() const noexcept override { return weights_.at.has_head(); }
  void embed(std::span<std::int32_t const> ids, Matrix<float> out) const override {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      dense::widen_row(weights_.embedding, ids[i], out.row(static_cast<std::int64_t>(i)));
    }
  }
  Status begin(SwitchBatch& batch) const override;
  Matrix<float const> embeddings(SwitchBatch& batch) const noexcept override;
  Status run_blocks(SwitchBatch& batch, ThreadPool& pool, std::uint32_t last) const override;
  Status route(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool) const override;
  Status run_moe(std::uint32_t layer, SwitchBatch& batch, ThreadPool& pool, PlanPosition position) const override;
  Status finish(SwitchBatch& batch, ThreadPool& pool) const override;

 private:
  static DeviceSwitchBuffers& of(SwitchBatch& batch) noexcept {
    return static_cast<DeviceSwitchBuffers&>(*batch.buffers);
  }
  template <class F>
  auto with_moe_layer(std::uint32_t layer, F const& f) const {
    MoeShape const shape{layer,           config_.num_experts, options_.experts_per_token, config_.activation,
                         config_.d_model, config_.d_ff};
    SwitchRouter const router(options_.capacity_rule, options_.expert_capacity.value_or(config_.expert_capacity));
    return with_element(expert_dtype_, [&]<class T>(T) {
      cuda::MoeLayer<T, SwitchRouter> moe(shape, store_, router);
      return f(moe);
    });
  }
  cuda::MoeContext moe_context(std::uint32_t layer, DeviceSwitchBuffers& at, PlanPosition position) const {
    return {*at.gemm, resources_.stream, at.moe_workspace, at.moe_pinned[layer], position};
  }

  /// y = (y +) x w^T, where x [rows, w.cols] stands in `x`, rounded to w's type.
  Status linear(DeviceSwitchBuffers& at, WeightMatrix const& w, Narrow const& x, float* y, std::int64_t rows,
                bool adds = false) const;
  /// Rounds x, float [rows, out.cols], to the type of `w`.
  Status narrow(float const* x, Narrow const& out, WeightMatrix const& w, std::int64_t rows) const;
  /// normed = norm(residual), and its rounding to the type of `w`.
  Status norm(SwitchBatch& batch, float const* weight, WeightMatrix const& w) const;
  Status run_attention(SwitchBatch& batch, SwitchBlockWeights const& block) const;
  Status run_dense_ffn(SwitchBatch& batch, SwitchBlockWeights const& block) const;
  Status run_head(SwitchBatch& batch) const;
  Status copy_back(float* to, float const* from, std::int64_t floats) const {
    return check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(floats) * sizeof(float), cudaMemcpyDeviceToHost,
                                 resources_.stream),
                 "cudaMemcpyAsync");
  }

  SwitchConfig config_;
  SwitchOptions options_;
  Dtype expert_dtype_;
  ExpertStore& store_;
  cuda::SwitchResources resources_;
  DeviceSwitchWeights weights_;
};

Status DeviceSwitch::check_store() const {
  if (store_.space() != Tier::device) {
    return {Errc::invalid_argument, "the store's experts are not in device memory"};
  }
  if (config_.d_kv > kernels::kMaxHeadWidth) {
    return {Errc::unsupported, "attention heads of " + std::to_string(config_.d_kv) + " columns on a device; up to " +
                                   std::to_string(kernels::kMaxHeadWidth) + " are possible"};
  }
  for (std::uint32_t layer = 0; layer < config_.moe_layers(); ++layer) {
    SIDA_TRY(with_moe_layer(layer, [](auto const& moe) { return moe.can_implement(moe.shape()); }));
  }
  return {};
}

Status DeviceSwitch::begin(SwitchBatch& batch) const {
  if (batch.buffers == nullptr) batch.buffers = std::make_unique<DeviceSwitchBuffers>(resources_);
  DeviceSwitchBuffers& at = of(batch);
  DeviceSwitchSizes sizes;
  with_moe_layer(0, [&](auto const& moe) {
    sizes.moe_workspace_bytes = moe.workspace_bytes(batch.tokens);
    sizes.moe_pinned_bytes = moe.pinned_bytes(batch.tokens);
  });
  sizes.moe_layers = config_.moe_layers();
  sizes.outputs_hidden = options_.outputs_hidden;
  SIDA_TRY(at.reserve(config_, batch, sizes));
  std::copy(batch.ids.begin(), batch.ids.end(), at.ids_there);
  std::copy(batch.offsets.begin(), batch.offsets.end(), at.offsets_there);
  at.is_running = true;
  cudaStream_t const stream = resources_.stream;
  SIDA_TRY(check(
      cudaMemcpyAsync(at.ids, at.ids_there, batch.ids.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice, stream),
      "cudaMemcpyAsync"));
  SIDA_TRY(check(cudaMemcpyAsync(at.offsets, at.offsets_there, batch.offsets.size() * sizeof(std::uint32_t),
                                 cudaMemcpyHostToDevice, stream),
                 "cudaMemcpyAsync"));
  WeightMatrix const& embedding = weights_.at.embedding;
  return check(
      kernels::embed(stream, embedding.dtype, embedding.data, at.ids, at.residual, batch.tokens, config_.d_model),
      "embed");
}

Matrix<float const> DeviceSwitch::embeddings(SwitchBatch& batch) const noexcept try {
  auto& there = of(batch).embeddings_there;
  there.resize(static_cast<std::size_t>(batch.tokens * config_.d_model));
  Matrix<float> const out(there.data(), batch.tokens, config_.d_model);
  embed(batch.ids, out);
  return out;
} catch (std::exception const&) {  // no memory
  return {};
}

Status DeviceSwitch::linear(DeviceSwitchBuffers& at, WeightMatrix const& w, Narrow const& x, float* y,
                            std::int64_t rows, bool adds) const {
  return at.gemm->run(resources_.stream, {.x = x.data,
                                          .x_stride = cuda::row_stride(w.dtype, x.cols),
                                          .w = w.data,
                                          .y = y,
                                          .y_stride = w.rows,
                                          .m = rows,
                                          .n = w.rows,
                                          .k = w.cols,
                                          .dtype = w.dtype,
                                          .adds = adds});
}

Status DeviceSwitch::narrow(float const* x, Narrow const& out, WeightMatrix const& w, std::int64_t rows) const {
  return check(kernels::narrow_rows(resources_.stream, w.dtype, x, out.data, cuda::row_stride(w.dtype, out.cols), rows,
                                    out.cols),
               "narrow_rows");
}

Status DeviceSwitch::norm(SwitchBatch& batch, float const* weight, WeightMatrix const& w) const {
  DeviceSwitchBuffers& at = of(batch);
  return check(
      kernels::rms_norm(resources_.stream, w.dtype, at.residual, weight, config_.layer_norm_epsilon, at.normed,
                        at.narrow.data, cuda::row_stride(w.dtype, config_.d_model), batch.tokens, config_.d_model),
      "rms_norm");
}

/// residual += attention(norm(residual))
Status DeviceSwitch::run_attention(SwitchBatch& batch, SwitchBlockWeights const& block) const {
  DeviceSwitchBuffers& at = of(batch);
  SIDA_TRY(norm(batch, block.attention_norm, block.q));
  SIDA_TRY(linear(at, block.q, at.narrow, at.q, batch.tokens));
  if (block.k.dtype != block.q.dtype) SIDA_TRY(narrow(at.normed, at.narrow, block.k, batch.tokens));
  SIDA_TRY(linear(at, block.k, at.narrow, at.k, batch.tokens));
  if (block.v.dtype != block.k.dtype) SIDA_TRY(narrow(at.normed, at.narrow, block.v, batch.tokens));
  SIDA_TRY(linear(at, block.v, at.narrow, at.v, batch.tokens));
  kernels::Attention args;
  args.q = at.q;
  args.k = at.k;
  args.v = at.v;
  args.stride = config_.inner_dim();
  args.context = at.context.data;
  args.context_stride = cuda::row_stride(block.o.dtype, config_.inner_dim());
  args.offsets = at.offsets;
  args.position_bias = weights_.at.position_bias;
  args.position_buckets = weights_.at.position_buckets;
  args.sequences = batch.sequences();
  args.heads = config_.num_heads;
  args.d_kv = config_.d_kv;
  args.buckets = config_.relative_attention_num_buckets;
  args.max_distance = config_.relative_attention_max_distance;
  args.longest = batch.longest;
  SIDA_TRY(check(kernels::attention(resources_.stream, block.o.dtype, args), "attention"));
  return linear(at, block.o, at.context, at.residual, batch.tokens, true);
}

/// residual += wo(act(wi(normed)))
Status DeviceSwitch::run_dense_ffn(SwitchBatch& batch, SwitchBlockWeights const& block) const {
  DeviceSwitchBuffers& at = of(batch);
  SIDA_TRY(linear(at, block.wi, at.narrow, at.wide, batch.tokens));
  SIDA_TRY(
      check(kernels::activate(resources_.stream, config_.activation, block.wo.dtype, at.wide, nullptr, at.inner.data,
                              cuda::row_stride(block.wo.dtype, config_.d_ff), batch.tokens, config_.d_ff),
            "activate"));
  return linear(at, block.wo, at.inner, at.residual, batch.tokens, true);
}

Status DeviceSwitch::run_blocks(SwitchBatch& batch, ThreadPool&, std::uint32_t last) const {
  for (; batch.block < last; ++batch.block) {
    SwitchBlockWeights const& block = weights_.at.blocks[batch.block];
    SIDA_TRY(run_attention(batch, block));
    bool const is_sparse = config_.is_sparse(batch.block);
    SIDA_TRY(norm(batch, block.ffn_norm, is_sparse ? block.router : block.wi));
    if (!is_sparse) SIDA_TRY(run_dense_ffn(batch, block));
  }
  return {};
}

Status DeviceSwitch::route(std::uint32_t layer, SwitchBatch& batch, ThreadPool&) const {
  DeviceSwitchBuffers& at = of(batch);
  SIDA_TRY(linear(at, weights_.at.blocks[batch.block - 1].router, at.narrow, at.router_logits, batch.tokens));
  Matrix<float const, Tier::device> const logits(at.router_logits, batch.tokens, config_.num_experts);
  return with_moe_layer(layer, [&](auto const& moe) {
    return moe.route(logits, {at.offsets, batch.sequences(), nullptr}, batch.routing.view(),
                     moe_context(layer, at, {}));
  });
}

Status DeviceSwitch::run_moe(std::uint32_t layer, SwitchBatch& batch, ThreadPool&, PlanPosition position) const {
  DeviceSwitchBuffers& at = of(batch);
  Matrix<float const, Tier::device> const x(at.normed, batch.tokens, config_.d_model);
  Matrix<float, Tier::device> const y(at.residual, batch.tokens, config_.d_model);
  Status status = with_moe_layer(
      layer, [&](auto& moe) { return moe.apply(x, batch.routing.view(), y, true, moe_context(layer, at, position)); });
  // A second try uses the same pinned memory.
  if (!status) static_cast<void>(cudaStreamSynchronize(resources_.stream));
  return status;
}

Status DeviceSwitch::finish(SwitchBatch& batch, ThreadPool&) const {
  DeviceSwitchBuffers& at = of(batch);
  cudaStream_t const stream = resources_.stream;
  std::int64_t const sequences = batch.sequences();
  SIDA_TRY(check(kernels::rms_norm(stream, Dtype::f32, at.residual, weights_.at.final_norm, config_.layer_norm_epsilon,
                                   at.normed, nullptr, 0, batch.tokens, config_.d_model),
                 "rms_norm"));
  SIDA_TRY(check(kernels::mean_rows(stream, at.normed, at.offsets, at.means, sequences, config_.d_model), "mean_rows"));
  if (has_head()) SIDA_TRY(run_head(batch));
  if (options_.outputs_hidden) SIDA_TRY(copy_back(at.hidden_there, at.normed, batch.tokens * config_.d_model));
  SIDA_TRY(copy_back(at.pooled_there, at.means, sequences * config_.d_model));
  SIDA_TRY(check(cudaStreamSynchronize(stream), "cudaStreamSynchronize"));
  at.is_running = false;
  at.hidden = options_.outputs_hidden ? Matrix<float const>(at.hidden_there, batch.tokens, config_.d_model)
                                      : Matrix<float const>();
  at.pooled = {at.pooled_there, sequences, config_.d_model};
  at.logits = has_head() ? Matrix<float const>(at.logits_there, sequences, config_.num_labels) : Matrix<float const>();
  return {};
}

/// logits = out_proj(tanh(dense(means)))
Status DeviceSwitch::run_head(SwitchBatch& batch) const {
  DeviceSwitchBuffers& at = of(batch);
  auto const& weights = weights_.at;
  cudaStream_t const stream = resources_.stream;
  std::int64_t const sequences = batch.sequences();
  SIDA_TRY(narrow(at.means, at.narrow, weights.head_dense, sequences));
  SIDA_TRY(linear(at, weights.head_dense, at.narrow, at.head_hidden, sequences));
  SIDA_TRY(check(kernels::add_bias(stream, at.head_hidden, weights.head_dense_bias, true, sequences, config_.d_model),
                 "add_bias"));
  SIDA_TRY(narrow(at.head_hidden, at.narrow, weights.head_out, sequences));
  SIDA_TRY(linear(at, weights.head_out, at.narrow, at.head_out, sequences));
  SIDA_TRY(check(kernels::add_bias(stream, at.head_out, weights.head_out_bias, false, sequences, config_.num_labels),
                 "add_bias"));
  return copy_back(at.logits_there, at.head_out, sequences * config_.num_labels);
}

}  // namespace
}  // namespace sida::inline v0::model_detail

namespace sida::inline v0::cuda {

Result<std::unique_ptr<SwitchEncoder>> load_switch_encoder(SwitchCheckpoint const& checkpoint, ExpertStore& store,
                                                           SwitchOptions const& options,
                                                           SwitchResources const& resources) {
  using Access = model_detail::SwitchEncoderAccess;
  SIDA_TRY(Access::check_options(checkpoint, store, options));
  auto compute = std::make_unique<model_detail::DeviceSwitch>(checkpoint, options, store, resources);
  SIDA_TRY(compute->check_store());
  SIDA_TRY_ASSIGN(auto tensors, model_detail::find_switch_tensors(checkpoint.config, *checkpoint.dense));
  if (options.routing == SwitchRouting::given) tensors.forget_routers();
  SIDA_TRY(compute->load(tensors, *checkpoint.dense));
  return Access::make(checkpoint.config, options, std::move(compute));
}

}  // namespace sida::inline v0::cuda
