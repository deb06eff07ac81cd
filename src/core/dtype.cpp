#include "sida/core/dtype.hpp"

namespace sida::inline v0 {

std::string_view to_string(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::f32: return "fp32";
    case Dtype::f16: return "fp16";
    case Dtype::bf16: return "bf16";
  }
  return "unknown";
}

}  // namespace sida::inline v0
