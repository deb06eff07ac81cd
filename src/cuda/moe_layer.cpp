#include "sida/cuda/moe_layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "cuda/element_rows.hpp"
#include "cuda/range.hpp"

#include "kernels/cuda/kernels.hpp"
#include "layer/expert_groups.hpp"
#include "layer/moe_checks.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/workspace.hpp"
#include "sida/cuda/error.hpp"
#include "sida/detail/moe_layer_core.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::cuda::detail {
namespace {

using kernels::RowGroup;
using sida::detail::ExpertGroups;

/// What the kernels read of a routing, in one block that travels to the device in one copy.
struct RoutingTable {
  std::uint32_t* order = nullptr;    // [assignments]
  std::uint32_t* row_of = nullptr;   // [assignments]
  std::uint16_t* experts = nullptr;  // [assignments]
  float* weights = nullptr;          // [assignments]

  void take(Workspace& workspace, std::int64_t assignments) noexcept {
    order = workspace.take<std::uint32_t>(assignments);
    row_of = workspace.take<std::uint32_t>(assignments);
    experts = workspace.take<std::uint16_t>(assignments);
    weights = workspace.take<float>(assignments);
  }
};

/// The lent host memory.
struct HostScratch {
  RoutingTable table;  // first: the copy's source
  std::size_t table_bytes = 0;
  ExpertGroups groups;
  RowGroup* row_groups = nullptr;  // [min(experts, assignments)], of a wave

  HostScratch(Workspace& workspace, MoeShape const& shape, std::int64_t tokens) {
    std::int64_t const assignments = tokens * shape.k;
    table.take(workspace, assignments);
    table_bytes = workspace.used_bytes();
    groups.take(workspace, shape, assignments, table.order, table.row_of);  // sorted where it is read from
    row_groups = workspace.take<RowGroup>(std::min<std::int64_t>(shape.experts, assignments));
  }
};

/// The lent device memory.
struct DeviceScratch {
  RoutingTable table;
  std::byte* x = nullptr;    // [assignments, d_model] of the weights' type
  std::byte* h = nullptr;    // [assignments, d_ff] of the weights' type
  float* wide = nullptr;     // [tokens, d_ff]: a large group's hidden layer before its activation
  float* wide_up = nullptr;  // the same, swiglu only
  float* out = nullptr;      // [assignments, d_model]

  DeviceScratch(Workspace& workspace, MoeShape const& shape, Dtype dtype, std::int64_t tokens) {
    std::int64_t const assignments = tokens * shape.k;
    table.take(workspace, assignments);
    x = workspace.take<std::byte>(row_bytes(dtype, shape.d_model) * assignments);
    h = workspace.take<std::byte>(row_bytes(dtype, shape.d_ff) * assignments);
    wide = workspace.take<float>(tokens * shape.d_ff);
    wide_up = workspace.take<float>(shape.kind == FfnKind::swiglu ? tokens * shape.d_ff : 0);
    out = workspace.take<float>(assignments * shape.d_model);
  }
};

Status check_span(char const* name, std::span<std::byte> span, std::size_t needed) {
  if (reinterpret_cast<std::uintptr_t>(span.data()) % Workspace::kAlignment != 0) {
    return {Errc::invalid_argument, std::string("MoE layer: the ") + name + " is not aligned to 64 bytes"};
  }
  if (span.size() < needed) {
    return {Errc::invalid_argument, std::string("MoE layer: a ") + name + " of " + std::to_string(span.size()) +
                                        " bytes where " + std::to_string(needed) + " are needed"};
  }
  return {};
}

Status check_lent(MoeShape const& shape, Dtype dtype, std::int64_t tokens, MoeContext const& context) {
  SIDA_TRY(check_span("workspace", context.workspace, moe_workspace_bytes(shape, dtype, tokens)));
  return check_span("pinned workspace", context.pinned, moe_pinned_bytes(shape, tokens));
}

/// One step, after validation.
class Run {
 public:
  Run(MoeShape const& shape, ExpertLayout const& layout, std::int64_t tokens, MoeContext const& context,
      HostScratch const& host, DeviceScratch const& device)
      : shape_(shape), layout_(layout), tokens_(tokens), context_(context), host_(host), device_(device) {}

  /// Sorts, uploads and gathers. @return the experts that have rows.
  Result<std::span<ExpertId const>> group(Matrix<float const, Tier::device> x, Routing<> routing) {
    auto const experts = host_.groups.sort(shape_, routing);
    std::int64_t const assignments = tokens_ * shape_.k;
    for (std::int64_t t = 0; t < tokens_; ++t) {
      std::copy_n(routing.experts.row(t).data(), shape_.k, host_.table.experts + t * shape_.k);
      std::copy_n(routing.weights.row(t).data(), shape_.k, host_.table.weights + t * shape_.k);
    }
    bool const travels_inline = assignments <= kernels::kInlineAssignments;
    if (!travels_inline) {
      SIDA_TRY(check(cudaMemcpyAsync(device_.table.order, host_.table.order, host_.table_bytes, cudaMemcpyHostToDevice,
                                     context_.stream),
                     "cudaMemcpyAsync"));
    }
    kernels::RowOrder order;
    (travels_inline ? order.on_host : order.on_device) = travels_inline ? host_.table.order : device_.table.order;
    order.rows = host_.groups.ends[shape_.experts - 1];
    order.k = shape_.k;
    SIDA_TRY(check(kernels::gather_rows(context_.stream, layout_.shape.dtype, x.data, x.stride, order, device_.x,
                                        row_stride(layout_.shape.dtype, shape_.d_model), shape_.d_model),
                   "gather_rows"));
    return experts;
  }

  /// All rows of the wave's experts: together, but for groups that are too large for that.
  Status wave(std::span<LeasedExpert const> experts) {
    std::int64_t const most = kernels::most_group_rows(layout_.shape.dtype, shape_.d_ff, shape_.d_model);
    std::size_t count = 0;
    for (LeasedExpert const& expert : experts) {
      std::int64_t const rows = host_.groups.rows_of(expert.id.expert);
      auto const first = static_cast<std::int32_t>(host_.groups.begin_of(expert.id.expert));
      RowGroup const group{expert.data, first, static_cast<std::int32_t>(rows)};
      if (rows <= most) {
        host_.row_groups[count++] = group;
      } else {
        SIDA_TRY(large_group(group));
      }
    }
    if (count == 0) return {};
    std::span<RowGroup const> const groups(host_.row_groups, count);
    cudaStream_t const stream = context_.stream;
    SIDA_TRY(check(kernels::group_hidden(stream, hidden_shape(), groups, device_.x, device_.h), "group_hidden"));
    return check(kernels::group_output(stream, output_shape(), groups, device_.h, device_.out), "group_output");
  }

  Status combine(Matrix<float const, Tier::device> x, Matrix<float, Tier::device> y, bool adds) {
    bool const travels_inline = tokens_ * shape_.k <= kernels::kInlineAssignments;
    RoutingTable const& table = travels_inline ? host_.table : device_.table;
    kernels::CombineRouting const routing{table.experts, table.weights, table.row_of, shape_.k, travels_inline};
    return check(kernels::combine(context_.stream, routing, device_.out, x.data, x.stride, y.data, y.stride, tokens_,
                                  shape_.d_model, adds),
                 "combine");
  }

 private:
  kernels::GroupShape hidden_shape() const {
    Dtype const dtype = layout_.shape.dtype;
    return {dtype,
            shape_.kind,
            shape_.d_ff,
            shape_.d_model,
            row_stride(dtype, shape_.d_model),
            row_stride(dtype, shape_.d_ff),
            layout_.in,
            layout_.gate};
  }
  kernels::GroupShape output_shape() const {
    Dtype const dtype = layout_.shape.dtype;
    return {
        dtype, shape_.kind, shape_.d_model, shape_.d_ff, row_stride(dtype, shape_.d_ff), shape_.d_model, layout_.out,
        0};
  }

  Status large_group(RowGroup const& group) {
    Dtype const dtype = layout_.shape.dtype;
    std::int64_t const first = group.first;
    std::int64_t const rows = group.rows;
    std::byte const* const record = group.record;
    std::byte* const x = device_.x + first * row_bytes(dtype, shape_.d_model);
    std::byte* const h = device_.h + first * row_bytes(dtype, shape_.d_ff);
    std::int64_t const x_stride = row_stride(dtype, shape_.d_model);
    std::int64_t const h_stride = row_stride(dtype, shape_.d_ff);
    bool const gated = shape_.kind == FfnKind::swiglu;
    auto const hidden = [&](std::size_t matrix, float* y) {
      return context_.gemm.run(context_.stream, {.x = x,
                                                 .x_stride = x_stride,
                                                 .w = record + matrix,
                                                 .y = y,
                                                 .y_stride = shape_.d_ff,
                                                 .m = rows,
                                                 .n = shape_.d_ff,
                                                 .k = shape_.d_model,
                                                 .dtype = dtype});
    };
    SIDA_TRY(hidden(gated ? layout_.gate : layout_.in, device_.wide));
    if (gated) SIDA_TRY(hidden(layout_.in, device_.wide_up));
    SIDA_TRY(check(kernels::activate(context_.stream, shape_.kind, dtype, device_.wide, device_.wide_up, h, h_stride,
                                     rows, shape_.d_ff),
                   "activate"));
    return context_.gemm.run(context_.stream, {.x = h,
                                               .x_stride = h_stride,
                                               .w = record + layout_.out,
                                               .y = device_.out + first * shape_.d_model,
                                               .y_stride = shape_.d_model,
                                               .m = rows,
                                               .n = shape_.d_model,
                                               .k = shape_.d_ff,
                                               .dtype = dtype});
  }

  MoeShape const& shape_;
  ExpertLayout const& layout_;
  std::int64_t tokens_;
  MoeContext const& context_;
  HostScratch host_;
  DeviceScratch device_;
};

}  // namespace

std::size_t moe_workspace_bytes(MoeShape const& shape, Dtype dtype, std::int64_t tokens) noexcept {
  if (tokens < 0 || shape.d_model < 1 || shape.d_ff < 1 || shape.k < 1) return 0;
  Workspace counter;
  DeviceScratch const scratch(counter, shape, dtype, tokens);
  static_cast<void>(scratch);
  return counter.used_bytes();
}

std::size_t moe_pinned_bytes(MoeShape const& shape, std::int64_t tokens) noexcept {
  if (tokens < 0 || shape.k < 1) return 0;
  Workspace counter;
  HostScratch const scratch(counter, shape, tokens);
  static_cast<void>(scratch);
  return counter.used_bytes();
}

Status moe_route(MoeShape const& shape, DeviceRouter const& router, Matrix<float const, Tier::device> logits,
                 DeviceTokenLayout const& layout, Routing<> out, MoeContext const& context) {
  Range const range("sida: route");
  std::int64_t const tokens = logits.rows;
  if (router.k != shape.k) {
    return {Errc::invalid_argument, "MoE layer: a router of " + std::to_string(router.k) +
                                        " experts a token in a layer of " + std::to_string(shape.k)};
  }
  if (router.rule != CapacityRule::none && router.capacity < 0) {
    return {Errc::invalid_argument, "router: an expert capacity of " + std::to_string(router.capacity)};
  }
  if (router.rule != CapacityRule::none && (layout.sequence_offsets == nullptr || layout.sequences < 1)) {
    return {Errc::invalid_argument, "router: an expert capacity is of a sequence, but no sequences are given"};
  }
  if (tokens < 0 || tokens > sida::detail::kMaxAssignments / shape.k) {
    return {Errc::invalid_argument, "MoE layer: " + std::to_string(tokens) + " tokens"};
  }
  SIDA_TRY(sida::detail::check_matrix("the logits", logits, tokens, shape.experts));
  SIDA_TRY(sida::detail::check_matrix("the routing's experts", out.experts, tokens, shape.k));
  SIDA_TRY(sida::detail::check_matrix("the routing's weights", out.weights, tokens, shape.k));
  std::int64_t const assignments = tokens * shape.k;
  // Weights first: float wants its alignment.
  std::size_t const bytes = static_cast<std::size_t>(assignments) * (sizeof(float) + sizeof(std::uint16_t));
  SIDA_TRY(check_span("workspace", context.workspace, bytes));
  SIDA_TRY(check_span("pinned workspace", context.pinned, bytes));
  if (tokens == 0) return {};
  auto* const weights = reinterpret_cast<float*>(context.workspace.data());
  auto* const experts = reinterpret_cast<std::uint16_t*>(weights + assignments);
  if (router.rule == CapacityRule::none) {
    SIDA_TRY(check(kernels::route_top_k(context.stream, logits.data, logits.stride, tokens, shape.experts, shape.k,
                                        router.renormalised, layout.real, experts, weights),
                   "route_top_k"));
  } else {
    kernels::SwitchRoute const rule{router.rule, router.capacity, layout.sequence_offsets, layout.sequences,
                                    layout.real};
    SIDA_TRY(check(kernels::route_switch(context.stream, rule, logits.data, logits.stride, tokens, shape.experts,
                                         experts, weights),
                   "route_switch"));
  }
  SIDA_TRY(check(cudaMemcpyAsync(context.pinned.data(), weights, bytes, cudaMemcpyDeviceToHost, context.stream),
                 "cudaMemcpyAsync"));
  SIDA_TRY(check(cudaStreamSynchronize(context.stream), "cudaStreamSynchronize"));
  auto const* const from_weights = reinterpret_cast<float const*>(context.pinned.data());
  auto const* const from_experts = reinterpret_cast<std::uint16_t const*>(from_weights + assignments);
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::copy_n(from_experts + t * shape.k, shape.k, out.experts.row(t).data());
    std::copy_n(from_weights + t * shape.k, shape.k, out.weights.row(t).data());
    if (std::isnan(out.weights(t, 0))) {
      return {Errc::invalid_argument, "router: the logits of token " + std::to_string(t) + " are not numbers"};
    }
  }
  return {};
}

Status moe_apply(MoeShape const& shape, Dtype dtype, ExpertStore& store, Matrix<float const, Tier::device> x,
                 Routing<> routing, Matrix<float, Tier::device> y, bool adds, MoeContext const& context) {
  Range const range("sida: MoE layer");
  SIDA_TRY(sida::detail::can_implement(shape, dtype));
  SIDA_TRY(sida::detail::check_operands(shape, x, routing, y));
  SIDA_TRY(check_lent(shape, dtype, x.rows, context));
  SIDA_TRY_ASSIGN(ExpertLayout const layout, ExpertLayout::of({shape.kind, dtype, shape.d_model, shape.d_ff}));
  if (store.space() != Tier::device) {
    return {Errc::invalid_argument, "MoE layer: the store's experts are not in device memory"};
  }
  if (store.slot_bytes() < layout.size_bytes) {
    return {Errc::invalid_argument, "MoE layer: records of at most " + std::to_string(store.slot_bytes()) +
                                        " bytes where an expert has " + std::to_string(layout.size_bytes)};
  }
  if (x.rows == 0) return {};
  Workspace host_memory(context.pinned);
  Workspace device_memory(context.workspace);
  Run run(shape, layout, x.rows, context, HostScratch(host_memory, shape, x.rows),
          DeviceScratch(device_memory, shape, dtype, x.rows));
  SIDA_TRY_ASSIGN(auto const wanted, run.group(x, routing));
  sida::detail::StoreExperts experts(store, StreamRef::native(context.stream), context.position);
  SIDA_TRY(experts.begin(wanted));
  for (;;) {
    auto next = [&] {
      Range const waiting("sida: wait for experts");
      return experts.next_wave();
    }();
    SIDA_TRY_ASSIGN(std::span<LeasedExpert const> const wave, std::move(next));
    if (wave.empty()) break;
    SIDA_TRY(run.wave(wave));
    experts.release();
  }
  return run.combine(x, y, adds);
}

}  // namespace sida::inline v0::cuda::detail
