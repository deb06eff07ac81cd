#include "bench/cpu/expert_arm.hpp"

namespace sida::bench {

std::vector<ArmSpec> peer_arms([[maybe_unused]] Dtype dtype) {
  std::vector<ArmSpec> specs;
#ifdef SIDA_BENCH_DNNL
  for (auto& spec : dnnl_arms()) specs.push_back(std::move(spec));
#endif
#ifdef SIDA_BENCH_OPENBLAS
  if (dtype == Dtype::f32) {
    for (auto& spec : openblas_arms()) specs.push_back(std::move(spec));
  }
#endif
  return specs;
}

std::vector<std::string> peer_notes() {
  return {
#ifdef SIDA_BENCH_DNNL
      dnnl_note(),
#else
      "not built with oneDNN",
#endif
#ifdef SIDA_BENCH_OPENBLAS
      openblas_note(),
#else
      "not built with OpenBLAS",
#endif
  };
}

}  // namespace sida::bench
