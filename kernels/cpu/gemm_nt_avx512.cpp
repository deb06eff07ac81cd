// Compiled with -mavx512f -mavx512vl -mavx512dq -mavx512bw: keep it free of anything that another file could
// instantiate too.
#include "kernels/cpu/gemm_nt_avx512.hpp"

namespace sida::kernels {

void gemm_nt_avx512(GemmNt const& args) noexcept { gemm_nt_body<Avx512>(args); }

}  // namespace sida::kernels
