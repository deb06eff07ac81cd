#include "kernels/cpu/lstm_cell_body.hpp"

namespace sida::kernels {

void lstm_cell_portable(LstmCell const& args) noexcept { lstm_cell_body(args); }

}  // namespace sida::kernels
