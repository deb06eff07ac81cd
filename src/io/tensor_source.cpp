#include "sida/io/tensor_source.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "core/shape_text.hpp"
#include "io/json.hpp"
#include "io/tensor_size.hpp"

namespace sida::inline v0 {
namespace io_detail {

unsigned dtype_bits(std::string_view dtype_name) noexcept {
  static constexpr std::array<std::pair<std::string_view, unsigned>, 22> kDtypes{{
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6},     {"U8", 8},      {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E8M0", 8}, {"I16", 16},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},       {"I32", 32},        {"U32", 32},    {"F32", 32},
      {"I64", 64},    {"U64", 64},    {"F64", 64},        {"C64", 64},
  }};
  for (auto const& [name, bits] : kDtypes) {
    if (name == dtype_name) return bits;
  }
  return 0;
}

Result<std::uint64_t> tensor_bytes(std::string_view dtype_name, std::span<std::int64_t const> shape,
                                   std::string const& where) {
  std::uint64_t bits = dtype_bits(dtype_name);
  if (bits == 0) return Error(Errc::unsupported, where + ": unknown dtype " + in_quotes(dtype_name));
  for (std::int64_t const dimension : shape) {
    if (__builtin_mul_overflow(bits, static_cast<std::uint64_t>(dimension), &bits)) {
      return Error(Errc::corrupt, where + ": size of shape " + detail::shape_text(shape) + " overflows");
    }
  }
  if (bits % 8 != 0) {
    return Error(Errc::corrupt, where + ": " + std::string(dtype_name) + " of shape " + detail::shape_text(shape) +
                                    " is not a whole number of bytes");
  }
  return bits / 8;
}

}  // namespace io_detail

std::optional<Dtype> TensorInfo::dtype() const noexcept {
  if (dtype_name == "F32") return Dtype::f32;
  if (dtype_name == "F16") return Dtype::f16;
  if (dtype_name == "BF16") return Dtype::bf16;
  return std::nullopt;
}

std::string TensorSource::describe(TensorInfo const& info) const {
  return path() + ": tensor " + io_detail::in_quotes(info.name);
}

Result<Dtype> TensorSource::dtype(TensorInfo const& info) const {
  if (auto const dtype = info.dtype()) return *dtype;
  return Error(Errc::unsupported, describe(info) + " is " + info.dtype_name + ", where F32, F16 or BF16 is needed");
}

TensorInfo const* TensorSource::find(std::string_view name) const noexcept {
  auto const all = tensors();
  auto const found = std::lower_bound(
      all.begin(), all.end(), name, [](TensorInfo const& info, std::string_view wanted) { return info.name < wanted; });
  return found != all.end() && found->name == name ? &*found : nullptr;
}

}  // namespace sida::inline v0
