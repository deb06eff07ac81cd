#include "sida/core/expert_layout.hpp"

#include <limits>

namespace sida::inline v0 {

std::string_view to_string(FfnKind kind) noexcept {
  switch (kind) {
    case FfnKind::relu: return "relu";
    case FfnKind::gelu: return "gelu";
    case FfnKind::swiglu: return "swiglu";
  }
  return "unknown";
}

Result<ExpertLayout> ExpertLayout::of(ExpertShape const& shape) {
  constexpr std::int64_t kMaxDimension = std::int64_t{1} << 24;
  if (shape.d_model < 1 || shape.d_ff < 1 || shape.d_model > kMaxDimension || shape.d_ff > kMaxDimension) {
    return Error(Errc::invalid_argument, "expert shape: d_model " + std::to_string(shape.d_model) + " and d_ff " +
                                             std::to_string(shape.d_ff) + " must be from 1 to 2^24");
  }
  // At most 2^24 * 2^24 * 4 * 3 bytes: no overflow in 64 bits.
  static_assert(sizeof(std::size_t) == 8, "sida assumes a 64-bit address space");
  ExpertLayout layout;
  layout.shape = shape;
  std::size_t const step = (layout.matrix_bytes() + 63) / 64 * 64;
  std::size_t const first = shape.kind == FfnKind::swiglu ? step : 0;
  layout.gate = 0;
  layout.in = first;
  layout.out = first + step;
  layout.size_bytes = layout.out + layout.matrix_bytes();
  return layout;
}

}  // namespace sida::inline v0
