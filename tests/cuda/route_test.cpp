#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "sida/cuda/moe_layer.hpp"
#include "sida/route/router.hpp"
#include "tests/cuda/device_fixture.hpp"

namespace sida {
namespace {

using test::must;

/// The device's routing of `logits` [tokens, experts], in a layer whose store is never asked.
template <class R>
Status route_on_device(R const& router, std::vector<float> const& logits, std::int64_t experts,
                       std::vector<std::uint32_t> const& offsets, std::vector<std::uint8_t> const& real,
                       HostRouting& out) {
  auto const tokens = static_cast<std::int64_t>(logits.size()) / experts;
  test::DeviceFloats logits_there(logits, experts);
  test::DeviceBytes offsets_there(offsets.size() * sizeof(std::uint32_t)), real_there(real.size());
  must(cudaMemcpy(offsets_there.bytes().data(), offsets.data(), offsets.size() * sizeof(std::uint32_t),
                  cudaMemcpyHostToDevice));
  if (!real.empty()) {
    must(cudaMemcpy(real_there.bytes().data(), real.data(), real.size(), cudaMemcpyHostToDevice));
  }
  MoeShape const shape{
      .layer = 0, .experts = static_cast<std::uint32_t>(experts), .k = router.k(), .d_model = 8, .d_ff = 8};
  test::DeviceBytes workspace(cuda::detail::moe_workspace_bytes(shape, Dtype::f32, tokens));
  cuda::PinnedMemory pinned;
  Buffer lent = test::take(Buffer::allocate(pinned, cuda::detail::moe_pinned_bytes(shape, tokens)));
  auto const stream = test::take(cuda::Stream::create());
  cuda::Gemm gemm(nullptr, {});
  out.resize(tokens, router.k());
  cuda::DeviceTokenLayout const layout{
      reinterpret_cast<std::uint32_t const*>(offsets_there.bytes().data()),
      static_cast<std::int64_t>(offsets.size()) - 1,
      real.empty() ? nullptr : reinterpret_cast<std::uint8_t const*>(real_there.bytes().data())};
  return cuda::detail::moe_route(
      shape, cuda::detail::DeviceRouter::of(router), logits_there.view(), layout, out.view(),
      {.gemm = gemm, .stream = stream.get(), .workspace = workspace.bytes(), .pinned = lent.bytes()});
}

class CudaRoute : public test::DeviceTest {
 protected:
  /// Logits of few levels, so that there are many ties, in three sequences with padding.
  template <class R>
  static void compare(R const& router, std::int64_t experts, unsigned seed, bool padded) {
    std::mt19937 random(seed);
    std::vector<std::uint32_t> const offsets{0, 5, 45, 60};
    std::vector<float> logits(static_cast<std::size_t>(60 * experts));
    for (float& logit : logits) logit = 0.5F * static_cast<float>(random() % 12);
    if (experts > 2) logits[3] = -std::numeric_limits<float>::infinity();
    std::vector<std::uint8_t> real;
    if (padded) {
      for (int t = 0; t < 60; ++t) real.push_back(static_cast<std::uint8_t>(random() % 5 != 0));
    }
    HostRouting expected, got;
    expected.resize(60, router.k());
    must(router.route({logits.data(), 60, experts}, {offsets, real}, expected.view()));
    must(route_on_device(router, logits, experts, offsets, real, got));
    for (std::int64_t t = 0; t < 60; ++t) {
      for (std::int64_t r = 0; r < router.k(); ++r) {
        EXPECT_EQ(got.view().experts(t, r), expected.view().experts(t, r)) << "token " << t << " rank " << r;
        EXPECT_NEAR(got.view().weights(t, r), expected.view().weights(t, r), 1e-6) << "token " << t << " rank " << r;
      }
    }
  }
};

TEST_F(CudaRoute, SwitchIsThatOfTheCpuWithEveryCapacity) {
  for (std::int64_t const experts : {1, 2, 8, 33, 128, 300}) {
    for (CapacityRule const rule : {CapacityRule::none, CapacityRule::hf, CapacityRule::hf_4_32}) {
      for (std::int64_t const capacity : {0, 1, 3}) {
        SCOPED_TRACE(std::to_string(experts) + " experts, capacity " + std::to_string(capacity));
        compare(SwitchRouter(rule, capacity), experts, static_cast<unsigned>(experts), capacity == 1);
      }
    }
  }
}

TEST_F(CudaRoute, TopKIsThatOfTheCpu) {
  for (std::int64_t const k : {1, 2, 3, 8}) {
    for (std::int64_t const experts : {8, 60, 128}) {
      for (auto const weights : {TopKSoftmaxRouter::Weights::as_softmax, TopKSoftmaxRouter::Weights::renormalised}) {
        SCOPED_TRACE(std::to_string(k) + " of " + std::to_string(experts));
        compare(TopKSoftmaxRouter(k, weights), experts, static_cast<unsigned>(k * experts), k == 2);
      }
    }
  }
}

TEST_F(CudaRoute, LogitsThatAreNoNumbersAreNamed) {
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits(32, 1.0F);  // [4, 8]
    logits[2 * 8 + 5] = bad;
    HostRouting routing;
    Status const status = route_on_device(SwitchRouter(CapacityRule::none, 0), logits, 8, {0, 4}, {}, routing);
    EXPECT_EQ(status.code(), Errc::invalid_argument);
    EXPECT_NE(status.message().find("token 2"), std::string::npos) << status.message();
  }
}

TEST_F(CudaRoute, ACapacityWantsSequences) {
  MoeShape const shape{.layer = 0, .experts = 4, .k = 1, .d_model = 8, .d_ff = 8};
  test::DeviceFloats logits(2, 4);
  cuda::Gemm gemm(nullptr, {});
  HostRouting out;
  out.resize(2, 1);
  Status const status =
      cuda::detail::moe_route(shape, cuda::detail::DeviceRouter::of(SwitchRouter(CapacityRule::hf, 3)), logits.view(),
                              {}, out.view(), {.gemm = gemm});
  EXPECT_EQ(status.code(), Errc::invalid_argument);
  EXPECT_NE(status.message().find("no sequences"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace sida
