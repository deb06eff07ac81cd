#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sida/core/api.hpp"
#include "sida/core/dtype.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0 {

/// The feed-forward network that an expert is. All weights are `[out, in]` row-major, so y = W x.
enum class FfnKind : std::uint8_t {
  relu,    ///< wo(relu(wi x))                       Switch
  gelu,    ///< wo(gelu(wi x)), gelu by erf          Switch with dense_act_fn "gelu"
  swiglu,  ///< down(silu(gate x) * (up x))          Mixtral, OLMoE, Qwen3-MoE
};

SIDA_API std::string_view to_string(FfnKind kind) noexcept;

/// Shape of one expert.
struct ExpertShape {
  FfnKind kind = FfnKind::relu;
  Dtype dtype = Dtype::f32;
  std::int64_t d_model = 0;
  std::int64_t d_ff = 0;
  friend bool operator==(ExpertShape const&, ExpertShape const&) = default;
};

/// Slots, records and reads are whole pages of this size, so that O_DIRECT reads land in the slot itself.
inline constexpr std::size_t kRecordAlignment = 4096;

/// `bytes` rounded up to whole 4 KiB pages. Precondition: bytes <= SIZE_MAX - 4095.
constexpr std::size_t slot_bytes_for(std::size_t bytes) noexcept {
  return (bytes + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
}

/// Where each matrix stands in an expert's record, in bytes from its start; each starts at a multiple of 64.
/// The same in the packed container, in a slot and in an engine's own source, so equal experts are equal bytes.
struct ExpertLayout {
  ExpertShape shape;
  std::size_t gate = 0;  ///< [d_ff, d_model]; swiglu only
  std::size_t in = 0;    ///< [d_ff, d_model]; wi, or swiglu's up
  std::size_t out = 0;   ///< [d_model, d_ff]; wo, or swiglu's down
  std::size_t size_bytes = 0;

  /// Bytes of one matrix (all are of one size).
  std::size_t matrix_bytes() const noexcept {
    return static_cast<std::size_t>(shape.d_model) * static_cast<std::size_t>(shape.d_ff) *
           sida::size_bytes(shape.dtype);
  }
  /// @return invalid_argument when a dimension is not positive or the size overflows.
  SIDA_API static Result<ExpertLayout> of(ExpertShape const& shape);
};

}  // namespace sida::inline v0
