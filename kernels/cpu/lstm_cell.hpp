#pragma once

#include <stdint.h>

namespace sida::kernels {

/// One step of an LSTM layer; see LstmCellArgs in sida/kernels/cpu.hpp.
struct LstmCell {
  float const* from_input;  // [4 * hidden]
  float const* from_state;  // [4 * hidden]
  float* cell;              // [hidden]
  float* state;             // [hidden]
  int64_t hidden;
};

void lstm_cell_portable(LstmCell const& args) noexcept;
void lstm_cell_avx2(LstmCell const& args) noexcept;

}  // namespace sida::kernels
