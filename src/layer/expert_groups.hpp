#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "sida/core/expert_id.hpp"
#include "sida/core/workspace.hpp"
#include "sida/layer/moe_shape.hpp"
#include "sida/route/routing.hpp"

namespace sida::inline v0::detail {

/// A routing sorted by expert. An assignment is token * k + rank; sorted, it is a row. Inline: layers of several
/// libraries share it.
struct ExpertGroups {
  std::int64_t* ends = nullptr;     // [experts]: first row after those of each expert
  std::uint32_t* order = nullptr;   // [assignments]: row -> assignment
  std::uint32_t* row_of = nullptr;  // [assignments]: assignment -> row
  ExpertId* ids = nullptr;          // [min(experts, assignments)]: those that have rows, ascending

  void take(Workspace& workspace, MoeShape const& shape, std::int64_t assignments) noexcept {
    auto* const rows = workspace.take<std::uint32_t>(assignments);
    take(workspace, shape, assignments, rows, workspace.take<std::uint32_t>(assignments));
  }
  /// With room for `order` and `row_of` that the caller has.
  void take(Workspace& workspace, MoeShape const& shape, std::int64_t assignments, std::uint32_t* order_room,
            std::uint32_t* row_of_room) noexcept {
    ends = workspace.take<std::int64_t>(shape.experts);
    order = order_room;
    row_of = row_of_room;
    ids = workspace.take<ExpertId>(std::min<std::int64_t>(shape.experts, assignments));
  }

  /// Counting sort, stable. @return the experts that have rows. Ids were checked before.
  std::span<ExpertId const> sort(MoeShape const& shape, Routing<> routing) noexcept {
    std::fill_n(ends, shape.experts, 0);
    for_each_assignment(routing, [&](std::uint16_t expert, std::uint32_t) { ++ends[expert]; });
    std::size_t distinct = 0;
    std::int64_t begin = 0;
    for (std::uint32_t e = 0; e < shape.experts; ++e) {
      if (ends[e] != 0) ids[distinct++] = {shape.layer, e};
      begin += std::exchange(ends[e], begin);  // now where the expert's rows begin
    }
    for_each_assignment(routing, [&](std::uint16_t expert, std::uint32_t assignment) {
      std::int64_t const row = ends[expert]++;
      order[row] = assignment;
      row_of[assignment] = static_cast<std::uint32_t>(row);
    });
    return {ids, distinct};
  }

  std::int64_t begin_of(std::uint32_t expert) const noexcept { return expert == 0 ? 0 : ends[expert - 1]; }
  std::int64_t rows_of(std::uint32_t expert) const noexcept { return ends[expert] - begin_of(expert); }

 private:
  template <class Body>
  static void for_each_assignment(Routing<> routing, Body const& body) {
    for (std::int64_t t = 0; t < routing.tokens(); ++t) {
      for (std::int64_t r = 0; r < routing.k(); ++r) {
        std::uint16_t const expert = routing.experts(t, r);
        if (expert != kNoExpert) body(expert, static_cast<std::uint32_t>(t * routing.k() + r));
      }
    }
  }
};

}  // namespace sida::inline v0::detail
