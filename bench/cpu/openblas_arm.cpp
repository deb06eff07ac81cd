#include <algorithm>
#include <cblas.h>

#include "bench/cpu/expert_arm.hpp"

namespace sida::bench {
namespace {

enum class Call : std::uint8_t { sgemm, sgemv };

/// y = x W^T for x [m, k] and W [n, k].
void multiply(Call call, int m, int n, int k, float const* x, void const* weights, float* y) {
  auto const* const w = static_cast<float const*>(weights);
  if (call == Call::sgemv) {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0F, w, k, x, 1, 0.0F, y, 1);
  } else {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0F, x, k, w, k, 0.0F, y, n);
  }
}

class OpenBlasArm final : public ExpertArm {
 public:
  OpenBlasArm(Call call, ArmTask const& task)
      : call_(call), task_(task), hidden_(static_cast<std::size_t>(task.rows * ExpertSet::kHidden)) {
    openblas_set_num_threads(static_cast<int>(task.pool.concurrency()));
  }

  Status run(std::size_t expert, float const* x, float* y) override {
    auto const rows = static_cast<int>(task_.rows);
    constexpr auto kModel = static_cast<int>(ExpertSet::kModel), kHidden = static_cast<int>(ExpertSet::kHidden);
    multiply(call_, rows, kHidden, kModel, x, task_.experts.in(expert), hidden_.data());
    for (float& h : hidden_) h = std::max(h, 0.0F);
    multiply(call_, rows, kModel, kHidden, hidden_.data(), task_.experts.out(expert), y);
    return {};
  }

 private:
  Call call_;
  ArmTask task_;
  std::vector<float> hidden_;
};

ArmSpec spec(std::string name, Call call, std::int64_t only_rows) {
  auto const open = [call](ArmTask const& task) -> Result<std::unique_ptr<ExpertArm>> {
    return std::unique_ptr<ExpertArm>(std::make_unique<OpenBlasArm>(call, task));
  };
  return {.name = std::move(name), .open = open, .only_rows = only_rows};
}

}  // namespace

std::vector<ArmSpec> openblas_arms() {
  return {spec("OpenBLAS sgemm", Call::sgemm, 0), spec("OpenBLAS sgemv", Call::sgemv, 1)};
}

std::string openblas_note() { return std::string(openblas_get_config()) + ", kernels of " + openblas_get_corename(); }

}  // namespace sida::bench
