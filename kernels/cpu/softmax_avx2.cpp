// Compiled with -mavx2 -mfma -mf16c: keep it free of anything that another file could instantiate too.
#include "kernels/cpu/softmax_body.hpp"

namespace sida::kernels {

void softmax_avx2(Softmax const& args) noexcept { softmax_body(args); }

}  // namespace sida::kernels
