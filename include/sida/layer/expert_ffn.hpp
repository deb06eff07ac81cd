#pragma once

#include <cstddef>
#include <cstdint>

#include "sida/core/api.hpp"
#include "sida/core/expert_layout.hpp"
#include "sida/core/matrix.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// One expert on some tokens, straight loops in double precision over float inputs: what the fast path is compared
/// with. x, y: [tokens, d_model]. `record` is laid out by `layout`.
SIDA_API void reference_expert_ffn(ExpertLayout const& layout, std::byte const* record, Matrix<float const> x,
                                   Matrix<float> y);

}  // namespace sida::inline v0
