// Compiled with -mavx2 -mfma -mf16c: keep it free of anything that another file could instantiate too.
#include "kernels/cpu/lstm_cell_body.hpp"

namespace sida::kernels {

void lstm_cell_avx2(LstmCell const& args) noexcept { lstm_cell_body(args); }

}  // namespace sida::kernels
