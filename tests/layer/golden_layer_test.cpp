// Blocks of Mixtral and OLMoE with random weights, against what transformers computed. See tests/goldens/README.md.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sida/io/safetensors.hpp"
#include "sida/layer/moe_layer.hpp"
#include "tests/layer/random_experts.hpp"

namespace sida {
namespace {

class GoldenLayer : public testing::TestWithParam<char const*> {
 protected:
  void SetUp() override {
    std::string const path = std::string(SIDA_TEST_DATA) + "/goldens/layer/" + GetParam() + ".safetensors";
    auto file = File::open(path, ReadPath::pread);
    ASSERT_TRUE(file) << file.message();
    std::vector<std::byte> bytes((*file)->size_bytes());
    ASSERT_TRUE((*file)->read_at(0, bytes));
    auto header = parse_safetensors_header(bytes, bytes.size(), path);
    ASSERT_TRUE(header) << header.message();
    k_ = std::stoll(header->metadata.at("top_k"));
    std::string const renormalise = header->metadata.at("renormalise");
    ASSERT_TRUE(renormalise == "true" || renormalise == "false") << renormalise;
    weights_ =
        renormalise == "true" ? TopKSoftmaxRouter::Weights::renormalised : TopKSoftmaxRouter::Weights::as_softmax;
    auto tensors = open_safetensors(path, ReadPath::pread);
    ASSERT_TRUE(tensors) << tensors.message();
    tensors_ = std::move(*tensors);
  }

  std::int64_t dim(std::string const& name, std::size_t axis) const { return tensors_->find(name)->shape[axis]; }

  template <class T>
  std::vector<T> read(std::string const& name) const {
    TensorInfo const* const info = tensors_->find(name);
    EXPECT_NE(info, nullptr) << name;
    std::vector<T> values(info->size_bytes / sizeof(T));
    Status const status = tensors_->read(name, 0, std::as_writable_bytes(std::span(values)));
    EXPECT_TRUE(status) << status.message();
    return values;
  }

  std::shared_ptr<ExpertSource const> open_experts(ExpertLayout const& layout, std::uint32_t experts) {
    std::vector<ExpertTensorNames> names;
    for (std::uint32_t e = 0; e < experts; ++e) {
      std::string const prefix = "experts." + std::to_string(e) + ".";
      names.push_back({prefix + "w1.weight", prefix + "w3.weight", prefix + "w2.weight"});
    }
    auto source = make_tensor_expert_source(tensors_, layout, {names});
    EXPECT_TRUE(source) << source.message();
    return std::move(*source);
  }

  std::int64_t k_ = 0;
  TopKSoftmaxRouter::Weights weights_{};
  std::shared_ptr<TensorSource const> tensors_;
};

TEST_P(GoldenLayer, AgreesWithTransformers) {
  auto const x = read<float>("x"), router = read<float>("router.weight"), y = read<float>("y");
  auto const golden_weights = read<float>("weights");
  auto const golden_experts = read<std::int32_t>("experts");
  std::int64_t const tokens = dim("x", 0), d_model = dim("x", 1);
  MoeShape const shape = {.layer = 0,
                          .experts = static_cast<std::uint32_t>(dim("router.weight", 0)),
                          .k = k_,
                          .kind = FfnKind::swiglu,
                          .d_model = d_model,
                          .d_ff = dim("experts.0.w1.weight", 0)};
  ExpertLayout const layout = *ExpertLayout::of({FfnKind::swiglu, Dtype::f32, d_model, shape.d_ff});
  auto const source = open_experts(layout, shape.experts);
  HostMemory memory;
  auto store = ExpertStore::open(*source, make_host_tier(source, memory, 1),
                                 {.budget_bytes = 3 * slot_bytes_for(layout.size_bytes)});
  ASSERT_TRUE(store) << store.message();

  for (CpuIsa const isa : runnable_cpu_isas()) {
    MoeLayer<float, Tier::host, TopKSoftmaxRouter> layer(shape, **store, TopKSoftmaxRouter(k_, weights_), isa);
    std::vector<float> logits(static_cast<std::size_t>(tokens * shape.experts));
    gemm_nt(isa, {x.data(), d_model, router.data(), d_model, logits.data(), shape.experts, tokens, shape.experts,
                  d_model, Dtype::f32});
    HostRouting routing;
    routing.resize(tokens, k_);
    std::uint32_t const offsets[] = {0, static_cast<std::uint32_t>(tokens)};
    Status status = layer.route({logits.data(), tokens, shape.experts}, {offsets}, routing.view());
    ASSERT_TRUE(status) << status.message();
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < k_; ++r) {
        auto const at = static_cast<std::size_t>(t * k_ + r);
        ASSERT_EQ(routing.view().experts(t, r), golden_experts[at]) << "token " << t << " rank " << r;
        ASSERT_NEAR(routing.view().weights(t, r), golden_weights[at], 2e-6) << "token " << t << " rank " << r;
      }
    }

    test::AlignedBytes workspace(layer.workspace_bytes(tokens));
    WorkerPool pool(2);
    std::vector<float> ours(y.size());
    status = layer.apply({x.data(), tokens, d_model}, routing.view(), {ours.data(), tokens, d_model},
                         {pool, workspace.bytes()});
    ASSERT_TRUE(status) << status.message();
    float largest = 0, error = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      largest = std::max(largest, std::abs(y[i]));
      error = std::max(error, std::abs(y[i] - ours[i]));
    }
    EXPECT_GT(largest, 0);
    EXPECT_LE(error, 1e-4F * largest) << to_string(isa);
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, GoldenLayer,
                         testing::Values("mixtral_top2", "olmoe_top2", "olmoe_top8", "olmoe_top8_renormalised"),
                         [](auto const& test) { return std::string(test.param); });

}  // namespace
}  // namespace sida
