#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "core/shape_text.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"
#include "sida/detail/try.hpp"
#include "sida/layer/moe_shape.hpp"
#include "sida/route/routing.hpp"

/// What a layer step refuses, whatever the memory that it works in. Inline: layers of several libraries share it.
namespace sida::inline v0::detail {

inline constexpr std::int64_t kMaxAssignments = std::numeric_limits<std::int32_t>::max();

template <class T, Tier Where>
Status check_matrix(char const* name, Matrix<T, Where> const& matrix, std::int64_t rows, std::int64_t cols) {
  if (matrix.rows != rows || matrix.cols != cols || matrix.stride < cols) {
    return {Errc::invalid_argument, std::string("MoE layer: ") + name + " is " + shape_text(matrix.rows, matrix.cols) +
                                        " with stride " + std::to_string(matrix.stride) + ", not " +
                                        shape_text(rows, cols)};
  }
  if (rows > 0 && matrix.data == nullptr) {
    return {Errc::invalid_argument, std::string("MoE layer: ") + name + " is null"};
  }
  return {};
}

inline Status check_ids(MoeShape const& shape, Routing<> routing) {
  for (std::int64_t t = 0; t < routing.tokens(); ++t) {
    for (std::uint16_t const expert : routing.experts.row(t)) {
      if (expert != kNoExpert && expert >= shape.experts) {
        return {Errc::invalid_argument, "MoE layer " + std::to_string(shape.layer) + ": token " + std::to_string(t) +
                                            " goes to expert " + std::to_string(expert) + " of " +
                                            std::to_string(shape.experts)};
      }
    }
  }
  return {};
}

/// x, routing and y fit the shape and each other; the routing's ids are experts.
template <Tier Where>
Status check_operands(MoeShape const& shape, Matrix<float const, Where> x, Routing<> routing, Matrix<float, Where> y) {
  std::int64_t const tokens = x.rows;
  if (tokens < 0 || tokens > kMaxAssignments / shape.k) {
    return {Errc::invalid_argument, "MoE layer: " + std::to_string(tokens) + " tokens"};
  }
  SIDA_TRY(check_matrix("x", x, tokens, shape.d_model));
  SIDA_TRY(check_matrix("y", y, tokens, shape.d_model));
  SIDA_TRY(check_matrix("the routing's experts", routing.experts, tokens, shape.k));
  SIDA_TRY(check_matrix("the routing's weights", routing.weights, tokens, shape.k));
  return check_ids(shape, routing);
}

}  // namespace sida::inline v0::detail
