#include "kernels/cpu/softmax_body.hpp"

namespace sida::kernels {

void softmax_portable(Softmax const& args) noexcept { softmax_body(args); }

}  // namespace sida::kernels
