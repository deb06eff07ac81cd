#include "sida/detail/moe_layer_core.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "layer/expert_groups.hpp"
#include "layer/ffn_block.hpp"
#include "layer/moe_checks.hpp"
#include "sida/core/workspace.hpp"
#include "sida/detail/try.hpp"
#include "sida/layer/moe_layer.hpp"

namespace sida::inline v0 {

namespace detail {

namespace {

/// Some rows of one expert within a batch of rows.
struct Unit {
  std::byte const* record;
  std::int64_t first;  // row of the batch
  std::int64_t rows;
  std::int64_t panel;  // the first of its own, of those of the batch
};

/// Rows that are computed at once: bounds the memory of x and the hidden layer as floats, 32 MiB or 64 rows. Packed,
/// and each expert's rows filled up to 16, they take half as much again, or more where experts have few rows each.
std::int64_t batch_rows(MoeShape const& shape, std::int64_t assignments) {
  constexpr std::int64_t kFloats = std::int64_t{8} << 20;
  std::int64_t const row = shape.d_model + shape.d_ff * (shape.kind == FfnKind::swiglu ? 2 : 1);
  return std::min(assignments, std::max<std::int64_t>(kFloats / row, 64));
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Of `columns` of each unit, those that one task takes: as many as leave every thread two tasks, since a task reads
/// all its rows anew, and its first weights unprepared.
std::int64_t task_columns(std::int64_t columns, std::int64_t units, std::size_t threads) {
  auto const enough = 2 * static_cast<std::int64_t>(threads);
  std::int64_t steps = 24;  // of columns that are packed at once
  auto const is_enough = [&] { return units * ceil_div(columns, steps * PackedRows::kColumns) >= enough; };
  while (steps > 1 && !is_enough()) steps = ceil_div(steps, 2);
  return steps * PackedRows::kColumns;
}

std::int64_t panels_of(std::int64_t rows) { return ceil_div(rows, PackedRows::kPanelRows); }

/// Elements from one row to the next of what a product reads: aligned, and not a multiple of 1 KiB apart, since rows a
/// power of two apart push each other out of the L1 cache.
std::int64_t row_stride(std::int64_t columns) {
  std::int64_t const aligned = (columns + 15) / 16 * 16;
  return aligned % 256 == 0 ? aligned + 16 : aligned;
}

/// The lent memory.
struct Scratch {
  std::int64_t rows = 0;  // of a batch
  ExpertGroups groups;
  Unit* units;  // [min(experts, rows)]
  float* x;     // [rows, d_model] at row_stride
  float* h;     // [rows, d_ff] at row_stride
  float* up;    // [rows, d_ff], swiglu only
  float* out;   // [assignments, d_model]
  // Of x and h, where products want them packed: each unit has panels of its own.
  std::byte* packed_x;
  std::byte* packed_h;

  Scratch(Workspace& workspace, MoeShape const& shape, std::int64_t tokens) {
    std::int64_t const assignments = tokens * shape.k;
    std::int64_t const experts = shape.experts;
    rows = batch_rows(shape, assignments);
    groups.take(workspace, shape, assignments);
    units = workspace.take<Unit>(std::min(experts, rows));
    x = workspace.take<float>(rows * row_stride(shape.d_model));
    h = workspace.take<float>(rows * row_stride(shape.d_ff));
    up = workspace.take<float>(shape.kind == FfnKind::swiglu ? rows * shape.d_ff : 0);
    out = workspace.take<float>(assignments * shape.d_model);
    std::int64_t const panels = rows / PackedRows::kPanelRows + std::min(experts, rows);
    packed_x = take_panels(workspace, panels, shape.d_model);
    packed_h = take_panels(workspace, panels, shape.d_ff);
  }

 private:
  /// Enough for every type, and every instruction set that this processor runs.
  static std::byte* take_panels(Workspace& workspace, std::int64_t panels, std::int64_t k) {
    PackedRows const largest = {best_cpu_isa(), Dtype::bf16, k};
    return workspace.take<std::byte>(static_cast<std::int64_t>(largest.bytes(panels * PackedRows::kPanelRows)));
  }
};

template <class Body>
void parallel(ThreadPool& pool, std::int64_t tasks, Body const& body) {
  auto const task = [&body](std::size_t i) { body(static_cast<std::int64_t>(i)); };
  if (tasks == 1) return task(0);
  pool.run(static_cast<std::size_t>(tasks), task);
}

Status check(MoeStep const& step) {
  MoeShape const& shape = step.shape;
  SIDA_TRY(can_implement(shape, step.dtype));
  if (!is_runnable(step.isa)) {
    return {Errc::unsupported, "MoE layer: this processor does not run " + std::string(to_string(step.isa))};
  }
  SIDA_TRY(check_operands(shape, step.x, step.routing, step.y));
  if (reinterpret_cast<std::uintptr_t>(step.workspace.data()) % Workspace::kAlignment != 0) {
    return {Errc::invalid_argument, "MoE layer: the workspace is not aligned to 64 bytes"};
  }
  std::size_t const needed = moe_workspace_bytes(shape, step.x.rows);
  if (step.workspace.size() < needed) {
    return {Errc::invalid_argument, "MoE layer: a workspace of " + std::to_string(step.workspace.size()) +
                                        " bytes where " + std::to_string(needed) + " are needed for " +
                                        std::to_string(step.x.rows) + " tokens"};
  }
  return {};
}

/// One step, after validation.
class Run {
 public:
  Run(MoeStep const& step, ExpertLayout const& layout, Workspace workspace)
      : step_(step),
        shape_(step.shape),
        layout_(layout),
        scratch_(workspace, step.shape, step.x.rows),
        packing_x_{step.isa, step.dtype, step.shape.d_model},
        packing_h_{step.isa, step.dtype, step.shape.d_ff} {}

  /// Sorts the assignments by expert. @return the experts that have any.
  std::span<ExpertId const> group() { return scratch_.groups.sort(shape_, step_.routing); }

  /// All rows of the wave's experts, batch after batch.
  void wave(std::span<LeasedExpert const> experts) {
    std::int64_t base = scratch_.groups.begin_of(experts.front().id.expert);
    std::int64_t rows = 0;
    std::int64_t units = 0;
    std::int64_t panels = 0;
    for (LeasedExpert const& expert : experts) {
      std::int64_t left = scratch_.groups.rows_of(expert.id.expert);
      while (left > 0) {
        std::int64_t const taken = std::min(left, scratch_.rows - rows);
        scratch_.units[units++] = {expert.data, rows, taken, panels};
        panels += panels_of(taken);
        rows += taken;
        left -= taken;
        if (rows == scratch_.rows) {
          batch({scratch_.units, static_cast<std::size_t>(units)}, base);
          base += std::exchange(rows, 0);
          units = panels = 0;
        }
      }
    }
    if (rows > 0) batch({scratch_.units, static_cast<std::size_t>(units)}, base);
  }

  /// y[t] = sum in rank order; written whole.
  void combine() {
    constexpr std::int64_t kTokens = 16;
    parallel(step_.pool, ceil_div(step_.x.rows, kTokens), [&](std::int64_t task) {
      std::int64_t const end = std::min(step_.x.rows, (task + 1) * kTokens);
      for (std::int64_t t = task * kTokens; t < end; ++t) combine_token(t);
    });
  }

 private:
  /// All rows of the units, whose first is row `base`: gathered, through the hidden layer, to the same rows of `out`.
  void batch(std::span<Unit const> units, std::int64_t base) {
    std::int64_t const panels = units.back().panel + panels_of(units.back().rows);
    parallel(step_.pool, panels, [&](std::int64_t panel) {
      Unit const& unit = *std::prev(std::ranges::upper_bound(units, panel, {}, &Unit::panel));
      gather(unit, base, (panel - unit.panel) * PackedRows::kPanelRows);
    });
    share_columns(units, base, shape_.d_ff, ffn_hidden);
    share_columns(units, base, shape_.d_model, ffn_output);
  }

  /// Rows of one panel of a unit, from its row `from` on.
  void gather(Unit const& unit, std::int64_t base, std::int64_t from) {
    std::int64_t const stride = row_stride(shape_.d_model);
    std::int64_t const rows = std::min(unit.rows - from, PackedRows::kPanelRows);
    std::int64_t const first = unit.first + from;
    for (std::int64_t r = first; r < first + rows; ++r) {
      std::int64_t const token = scratch_.groups.order[base + r] / shape_.k;
      std::copy_n(step_.x.data + token * step_.x.stride, shape_.d_model, scratch_.x + r * stride);
    }
    if (!packing_x_.is_needed()) return;
    packing_x_.pack(scratch_.x + first * stride, stride, rows, 0, shape_.d_model,
                    panels_at(scratch_.packed_x, packing_x_, unit) + packing_x_.bytes(from));
  }

  /// Where a unit's first panel is, or null where rows aren't packed.
  static std::byte* panels_at(std::byte* panels, PackedRows const& packing, Unit const& unit) {
    return packing.is_needed() ? panels + packing.bytes(unit.panel * PackedRows::kPanelRows) : nullptr;
  }

  void share_columns(std::span<Unit const> units, std::int64_t base, std::int64_t columns,
                     void (&step)(FfnBlock const&, std::int64_t, std::int64_t)) {
    std::int64_t const per_task = task_columns(columns, std::ssize(units), step_.pool.concurrency());
    std::int64_t const chunks = ceil_div(columns, per_task);
    parallel(step_.pool, std::ssize(units) * chunks, [&](std::int64_t task) {
      Unit const& unit = units[static_cast<std::size_t>(task / chunks)];
      std::int64_t const first = task % chunks * per_task;
      step(block(unit, base), first, std::min(per_task, columns - first));
    });
  }

  FfnBlock block(Unit const& unit, std::int64_t base) const {
    std::int64_t const d_model = shape_.d_model;
    std::int64_t const d_ff = shape_.d_ff;
    return {layout_,
            unit.record,
            step_.isa,
            {scratch_.x + unit.first * row_stride(d_model), unit.rows, d_model, row_stride(d_model)},
            {scratch_.h + unit.first * row_stride(d_ff), unit.rows, d_ff, row_stride(d_ff)},
            {scratch_.up + (shape_.kind == FfnKind::swiglu ? unit.first * d_ff : 0), unit.rows, d_ff},
            {scratch_.out + (base + unit.first) * d_model, unit.rows, d_model},
            panels_at(scratch_.packed_x, packing_x_, unit),
            panels_at(scratch_.packed_h, packing_h_, unit)};
  }

  void combine_token(std::int64_t t) {
    std::span<float> const y = step_.y.row(t);
    std::fill(y.begin(), y.end(), 0.0F);
    for (std::int64_t r = 0; r < shape_.k; ++r) {
      float const weight = step_.routing.weights(t, r);
      bool const passes_through = step_.routing.experts(t, r) == kNoExpert;
      if (passes_through && weight == 0.0F) continue;
      float const* const from = passes_through
                                    ? step_.x.row(t).data()
                                    : scratch_.out + scratch_.groups.row_of[t * shape_.k + r] * shape_.d_model;
      for (std::size_t c = 0; c < y.size(); ++c) y[c] += weight * from[c];
    }
  }

  MoeStep const& step_;
  MoeShape const& shape_;
  ExpertLayout const& layout_;
  Scratch scratch_;
  PackedRows packing_x_, packing_h_;
};

/// Experts that are all at hand: one wave.
class ArrayExperts final : public ExpertProvider {
 public:
  explicit ArrayExperts(std::span<std::byte const* const> records) : records_(records) {}
  std::size_t record_bytes() const noexcept override { return std::numeric_limits<std::size_t>::max(); }
  Status begin(std::span<ExpertId const> experts) override {
    wave_.clear();
    for (ExpertId const id : experts) {
      if (id.expert >= records_.size() || records_[id.expert] == nullptr) {
        return {Errc::invalid_argument, "MoE layer: no record for " + to_string(id)};
      }
      wave_.push_back({id, SlotId{}, records_[id.expert]});
    }
    served_ = wave_.empty();
    return {};
  }
  Result<std::span<LeasedExpert const>> next_wave() override {
    std::span<LeasedExpert const> const all = wave_;
    return std::exchange(served_, true) ? all.first(0) : all;
  }
  void release() noexcept override {}

 private:
  std::span<std::byte const* const> records_;
  std::vector<LeasedExpert> wave_;
  bool served_ = true;
};

}  // namespace

Status can_implement(MoeShape const& shape, Dtype dtype) {
  if (shape.experts < 1 || shape.experts > kNoExpert) {
    return {Errc::invalid_argument,
            "MoE layer: " + std::to_string(shape.experts) + " experts; 1 to 65535 are possible"};
  }
  if (shape.k < 1 || shape.k > shape.experts) {
    return {Errc::invalid_argument,
            "MoE layer: " + std::to_string(shape.k) + " of " + std::to_string(shape.experts) + " experts per token"};
  }
  return ExpertLayout::of({shape.kind, dtype, shape.d_model, shape.d_ff}).status();
}

Status moe_apply_host(MoeStep const& step, ExpertProvider& experts) {
  SIDA_TRY(check(step));
  SIDA_TRY_ASSIGN(ExpertLayout const layout,
                  ExpertLayout::of({step.shape.kind, step.dtype, step.shape.d_model, step.shape.d_ff}));
  if (experts.record_bytes() < layout.size_bytes) {
    return {Errc::invalid_argument, "MoE layer: records of at most " + std::to_string(experts.record_bytes()) +
                                        " bytes where an expert has " + std::to_string(layout.size_bytes)};
  }
  Run run(step, layout, Workspace(step.workspace));
  SIDA_TRY(experts.begin(run.group()));
  for (;;) {
    SIDA_TRY_ASSIGN(std::span<LeasedExpert const> const wave, experts.next_wave());
    if (wave.empty()) break;
    run.wave(wave);
    experts.release();
  }
  run.combine();
  return {};
}

}  // namespace detail

std::size_t moe_workspace_bytes(MoeShape const& shape, std::int64_t tokens) noexcept {
  if (tokens < 0 || shape.d_model < 1 || shape.d_ff < 1 || shape.k < 1) return 0;
  Workspace counter;
  detail::Scratch const scratch(counter, shape, tokens);
  static_cast<void>(scratch);
  return counter.used_bytes();
}

Status moe_over_arrays(MoeShape const& shape, Dtype dtype, CpuIsa isa, std::span<std::byte const* const> records,
                       Matrix<float const> x, Routing<> routing, Matrix<float> y, MoeContext const& context) {
  detail::ArrayExperts experts(records);
  return detail::moe_apply_host({shape, dtype, isa, x, routing, y, context.pool, context.workspace}, experts);
}

}  // namespace sida::inline v0
