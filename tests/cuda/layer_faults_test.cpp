#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "sida/cuda/device_tier.hpp"
#include "sida/cuda/moe_layer.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/cuda/faults.hpp"
#include "tests/layer/random_experts.hpp"

namespace sida {
namespace {

using test::must;
using test::take;

constexpr std::uint32_t kExperts = 5;
constexpr std::uint32_t kEvents = 3;

/// Experts, and the routings of a few events: groups of 1 to 14 rows, and experts without any.
struct Inputs {
  MoeShape shape{.experts = kExperts, .k = 1, .kind = FfnKind::swiglu, .d_model = 24, .d_ff = 32};
  Dtype dtype;
  std::shared_ptr<test::MemorySource> source;
  std::vector<float> x;
  std::vector<HostRouting> routings{kEvents};
  std::vector<std::vector<ExpertId>> plan{kEvents};
  static constexpr std::int64_t kTokens = 20;

  explicit Inputs(Dtype dtype_) : dtype(dtype_) {
    std::mt19937 random(1);
    auto const layout = take(ExpertLayout::of({shape.kind, dtype, shape.d_model, shape.d_ff}));
    std::vector<std::vector<std::byte>> records;
    for (std::uint32_t e = 0; e < kExperts; ++e) records.push_back(test::random_record(layout, random));
    source = std::make_shared<test::MemorySource>(std::move(records));
    x = test::random_floats(kTokens * shape.d_model, random);
    for (std::uint32_t i = 0; i < kEvents; ++i) {
      routings[i].resize(kTokens, 1);
      auto const routing = routings[i].view();
      for (std::int64_t t = 0; t < kTokens; ++t) {
        std::uint32_t const rank = t < 14 ? 0 : t < 19 ? 1 : 2;
        routing.experts(t, 0) = static_cast<std::uint16_t>((rank + 2 * i) % kExperts);
        routing.weights(t, 0) = 0.5F;
      }
      for (std::uint32_t rank = 0; rank < 3; ++rank) plan[i].push_back({0, (rank + 2 * i) % kExperts});
      std::ranges::sort(plan[i], {}, &ExpertId::expert);
    }
  }
};

struct Engine : test::Lent {
  Buffer gemm_workspace = take(Buffer::allocate(device, 1 << 12, 256));
  cuda::Gemm gemm{blas.get(), gemm_workspace.bytes()};
  Buffer x, y, workspace, lent;
  std::unique_ptr<ExpertStore> host_store, store;

  Engine(Inputs const& in, bool host_is_pinned) {
    std::size_t const bytes = in.x.size() * sizeof(float);
    x = take(Buffer::allocate(device, bytes, 256));
    y = take(Buffer::allocate(device, bytes, 256));
    must(cudaMemcpyAsync(x.bytes().data(), in.x.data(), bytes, cudaMemcpyHostToDevice, stream.get()));
    MemoryResource& memory = host_is_pinned ? static_cast<MemoryResource&>(pinned) : host_memory;
    std::size_t const slot = slot_bytes_for(in.source->record_bytes({0, 0}));
    host_store = take(ExpertStore::open(*in.source, make_host_tier(in.source, memory, 1), {.budget_bytes = 4 * slot}));
    store = take(ExpertStore::open(
        *in.source, cuda::make_device_tier(*host_store, device, {.host_is_pinned = host_is_pinned, .poison = true}),
        {.budget_bytes = 2 * slot}));
  }

  /// Queues what one event takes.
  template <class T>
  void start(Inputs& in, std::uint32_t event, PlanPosition position) {
    cuda::MoeLayer<T, TopKSoftmaxRouter> layer(in.shape, *store,
                                               TopKSoftmaxRouter(1, TopKSoftmaxRouter::Weights::as_softmax));
    if (workspace.size_bytes() == 0) {
      workspace = take(Buffer::allocate(device, layer.workspace_bytes(Inputs::kTokens), 256));
    }
    if (lent.size_bytes() == 0) lent = take(Buffer::allocate(pinned, layer.pinned_bytes(Inputs::kTokens)));
    must(stream.synchronize());  // who lent it before
    Matrix<float const, Tier::device> const from(reinterpret_cast<float const*>(x.bytes().data()), Inputs::kTokens,
                                                 in.shape.d_model);
    Matrix<float, Tier::device> const to(reinterpret_cast<float*>(y.bytes().data()), Inputs::kTokens, in.shape.d_model);
    must(layer.apply(from, in.routings[event].view(), to, false,
                     {.gemm = gemm,
                      .stream = stream.get(),
                      .workspace = workspace.bytes(),
                      .pinned = lent.bytes(),
                      .position = position}));
  }
  template <class T>
  std::string run(Inputs& in, std::uint32_t event, PlanPosition position) {
    start<T>(in, event, position);
    std::string bytes(y.size_bytes(), '\0');
    must(stream.synchronize());
    must(cudaMemcpy(bytes.data(), y.bytes().data(), bytes.size(), cudaMemcpyDeviceToHost));
    return bytes;
  }
};

template <class T>
test::Outcome scenario(Inputs& in, bool host_is_pinned) {
  test::Outcome outcome;
  std::unique_ptr<Engine> engine;
  retried(outcome, [&] { engine = std::make_unique<Engine>(in, host_is_pinned); });
  PlanId const plan = take(engine->store->submit_plan(in.plan));
  for (std::uint32_t event = 0; event < kEvents; ++event) {
    retried(outcome, [&] { outcome.bytes += engine->run<T>(in, event, {plan, event}); });
  }
  engine.reset();
  return outcome;
}

/// Everything goes while copies ahead and a layer's kernels are under way.
test::Outcome left_early(Inputs& in) {
  cuda_on_host::set({.shuffle = 7});
  test::Outcome outcome;
  std::unique_ptr<Engine> engine;
  retried(outcome, [&] { engine = std::make_unique<Engine>(in, true); });
  static_cast<void>(take(engine->store->submit_plan(in.plan)));
  retried(outcome, [&] { engine->start<bf16>(in, 0, {}); });
  static_cast<void>(take(engine->store->submit_plan(in.plan)));
  engine.reset();
  return outcome;
}

TEST(CudaLayerFaults, EveryCallMayFailWithTensorCores) {
  Inputs in(Dtype::bf16);
  test::fail_every_call([&] { return scenario<bf16>(in, true); });
}
TEST(CudaLayerFaults, EveryCallMayFailWithCublasAndMemoryThatIsNotPinned) {
  Inputs in(Dtype::f32);
  test::fail_every_call([&] { return scenario<float>(in, false); });
}
TEST(CudaLayerFaults, EveryCallMayFailWhereAllIsLeftUnderWay) {
  Inputs in(Dtype::bf16);
  test::fail_every_call([&] { return left_early(in); });
}

}  // namespace
}  // namespace sida
