#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/cpu/expert_set.hpp"
#include "sida/core/result.hpp"
#include "sida/core/thread_pool.hpp"
#include "sida/kernels/cpu.hpp"

namespace sida::bench {

/// One way to compute experts for a fixed number of rows: y = wo relu(wi x).
class ExpertArm {
 public:
  virtual ~ExpertArm() = default;
  /// x, y: [rows, kModel] of floats.
  virtual Status run(std::size_t expert, float const* x, float* y) = 0;
};

/// What an arm computes, and with what. Both outlive it. Of the pool, libraries take the number of threads only: they
/// have threads of their own.
struct ArmTask {
  ExpertSet const& experts;
  std::int64_t rows;
  ThreadPool& pool;
};

struct ArmSpec {
  std::string name;
  bool is_sida = false;
  /// A library keeps one number of threads for the process: of arms that are open together, all have the same pool.
  std::function<Result<std::unique_ptr<ExpertArm>>(ArmTask const&)> open;
  /// 0: any number.
  std::int64_t only_rows = 0;
};

/// sida's, one for each instruction set that this processor runs, the best last.
std::vector<ArmSpec> sida_arms();
/// The libraries' that this was built with and that have products of such weights.
std::vector<ArmSpec> peer_arms(Dtype dtype);
/// For each library: its name, version and what it takes the processor for; or that this was built without it.
std::vector<std::string> peer_notes();

// What those put together. Each is defined only where its library is.
std::vector<ArmSpec> dnnl_arms();
std::string dnnl_note();
std::vector<ArmSpec> openblas_arms();  ///< of float weights
std::string openblas_note();

}  // namespace sida::bench
