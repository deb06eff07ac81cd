#include <utility>

#include "bench/cpu/expert_arm.hpp"
#include "sida/detail/try.hpp"
#include "sida/layer/moe_layer.hpp"

namespace sida::bench {
namespace {

/// A whole layer, all of whose tokens go to one expert: with what it costs to gather them and to combine.
class SidaArm final : public ExpertArm {
 public:
  static Result<std::unique_ptr<ExpertArm>> open(CpuIsa isa, ArmTask const& task) {
    MoeShape const shape{.experts = static_cast<std::uint32_t>(task.experts.size()),
                         .kind = FfnKind::relu,
                         .d_model = ExpertSet::kModel,
                         .d_ff = ExpertSet::kHidden};
    SIDA_TRY_ASSIGN(auto workspace, Buffer::allocate(host_memory(), moe_workspace_bytes(shape, task.rows)));
    return std::unique_ptr<ExpertArm>(new SidaArm(isa, task, shape, std::move(workspace)));
  }

  Status run(std::size_t expert, float const* x, float* y) override {
    auto const routing = routing_.view();
    for (std::int64_t t = 0; t < task_.rows; ++t) routing.experts(t, 0) = static_cast<std::uint16_t>(expert);
    constexpr auto kModel = ExpertSet::kModel;
    return moe_over_arrays(shape_, task_.experts.layout().shape.dtype, isa_, task_.experts.records(),
                           Matrix<float const>(x, task_.rows, kModel), routing, Matrix<float>(y, task_.rows, kModel),
                           {.pool = task_.pool, .workspace = workspace_.bytes()});
  }

 private:
  SidaArm(CpuIsa isa, ArmTask const& task, MoeShape const& shape, Buffer workspace)
      : isa_(isa), task_(task), shape_(shape), workspace_(std::move(workspace)) {
    routing_.resize(task.rows, 1);
    for (std::int64_t t = 0; t < task.rows; ++t) routing_.view().weights(t, 0) = 1.0F;
  }

  CpuIsa isa_;
  ArmTask task_;
  MoeShape shape_;
  Buffer workspace_;
  HostRouting routing_;
};

}  // namespace

std::vector<ArmSpec> sida_arms() {
  std::vector<ArmSpec> specs;
  for (CpuIsa const isa : runnable_cpu_isas()) {
    specs.push_back({.name = "sida " + std::string(to_string(isa)),
                     .is_sida = true,
                     .open = [isa](ArmTask const& task) { return SidaArm::open(isa, task); }});
  }
  return specs;
}

}  // namespace sida::bench
