#include "sida/route/router.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Logits of some sequences, and room for a routing that starts full of rubbish.
struct Batch {
  std::int64_t tokens, experts, k;
  std::vector<float> logits;                    // [tokens, experts]
  std::vector<std::uint32_t> sequence_offsets;  // [sequences + 1]
  std::vector<std::uint8_t> real;               // [tokens] or empty
  std::vector<std::uint16_t> ids;               // [tokens, k]
  std::vector<float> weights;                   // [tokens, k]

  Batch(std::int64_t tokens_, std::int64_t experts_, std::int64_t k_)
      : tokens(tokens_),
        experts(experts_),
        k(k_),
        logits(static_cast<std::size_t>(tokens_ * experts_)),
        sequence_offsets({0, static_cast<std::uint32_t>(tokens_)}),
        ids(static_cast<std::size_t>(tokens_ * k_), 12345),
        weights(static_cast<std::size_t>(tokens_ * k_), -5.0F) {}

  void fill(std::mt19937& random, float spread = 2.0F) {
    std::normal_distribution<float> normal(0, spread);
    for (float& logit : logits) logit = normal(random);
  }
  /// One expert to which each token goes without doubt.
  void send(std::vector<int> const& choices) {
    for (std::size_t t = 0; t < choices.size(); ++t) logits[t * static_cast<std::size_t>(experts) + choices[t]] = 50;
  }
  Matrix<float const> view() const { return {logits.data(), tokens, experts}; }
  TokenLayout layout() const { return {sequence_offsets, real}; }
  Routing<> out() { return {{ids.data(), tokens, k}, {weights.data(), tokens, k}}; }
  template <class R>
  Status route(R const& router) {
    return router.route(view(), layout(), out());
  }
  std::vector<double> probabilities(std::int64_t token) const {
    std::span<float const> const row = view().row(token);
    double const highest = *std::max_element(row.begin(), row.end());
    std::vector<double> p;
    for (float const logit : row) p.push_back(std::exp(logit - highest));
    double const sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= sum;
    return p;
  }
};

using Weights = TopKSoftmaxRouter::Weights;

TEST(SwitchRouter, ChoosesTheLikeliestExpertAndItsProbability) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    Batch batch(1 + static_cast<std::int64_t>(random() % 20), 1 + static_cast<std::int64_t>(random() % 70), 1);
    batch.fill(random);
    ASSERT_TRUE(batch.route(SwitchRouter(CapacityRule::none, 0)));
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      auto const p = batch.probabilities(t);
      auto const best = std::max_element(p.begin(), p.end()) - p.begin();
      ASSERT_EQ(batch.out().experts(t, 0), best);
      ASSERT_NEAR(batch.out().weights(t, 0), p[static_cast<std::size_t>(best)], 1e-6);
    }
  }
}

TEST(SwitchRouter, GivesATieToTheLowestId) {
  Batch batch(1, 5, 1);
  batch.logits = {0, 3, 1, 3, 3};
  ASSERT_TRUE(batch.route(SwitchRouter(CapacityRule::none, 0)));
  EXPECT_THAT(batch.ids, ElementsAre(1));
}

TEST(SwitchRouter, ComparesProbabilitiesNotLogits) {
  Batch batch(1, 2, 1);
  batch.logits = {0, 1e-9F};  // the higher logit, but softmax in float32 cannot tell
  ASSERT_TRUE(batch.route(SwitchRouter(CapacityRule::none, 0)));
  EXPECT_THAT(batch.ids, ElementsAre(0));
}

TEST(SwitchRouter, DropsTokensBeyondCapacityInSequenceOrder) {
  Batch batch(6, 3, 1);
  batch.send({1, 1, 2, 1, 1, 2});
  ASSERT_TRUE(batch.route(SwitchRouter(CapacityRule::hf, 2)));
  EXPECT_THAT(batch.ids, ElementsAre(1, 1, 2, kNoExpert, kNoExpert, 2));
  EXPECT_THAT(batch.weights, ElementsAre(1, 1, 1, 0, 0, 1));
}

TEST(SwitchRouter, PassesDroppedTokensThroughAsTransformers432Did) {
  Batch batch(3, 2, 1);
  batch.send({0, 0, 0});
  ASSERT_TRUE(batch.route(SwitchRouter(CapacityRule::hf_4_32, 1)));
  EXPECT_THAT(batch.ids, ElementsAre(0, kNoExpert, kNoExpert));
  EXPECT_THAT(batch.weights, Each(1));
}

TEST(SwitchRouter, CountsCapacityAnewInEachSequence) {
  Batch batch(5, 2, 1);
  batch.send({0, 0, 0, 0, 0});
  batch.sequence_offsets = {0, 2, 2, 5};
  ASSERT_TRUE(batch.route(SwitchRouter(CapacityRule::hf, 1)));
  EXPECT_THAT(batch.ids, ElementsAre(0, kNoExpert, 0, kNoExpert, kNoExpert));
}

TEST(SwitchRouter, RoutesASequenceAsIfItWereAlone) {
  std::mt19937 random(2);
  for (CapacityRule const rule : {CapacityRule::none, CapacityRule::hf, CapacityRule::hf_4_32}) {
    Batch all(30, 4, 1);
    all.fill(random);
    all.sequence_offsets = {0, 7, 19, 30};
    ASSERT_TRUE(all.route(SwitchRouter(rule, 2)));
    for (std::size_t s = 0; s < 3; ++s) {
      std::ptrdiff_t const first = all.sequence_offsets[s], last = all.sequence_offsets[s + 1];
      Batch one(last - first, 4, 1);
      one.logits.assign(all.logits.begin() + first * 4, all.logits.begin() + last * 4);
      ASSERT_TRUE(one.route(SwitchRouter(rule, 2)));
      EXPECT_TRUE(std::equal(one.ids.begin(), one.ids.end(), all.ids.begin() + first));
      EXPECT_TRUE(std::equal(one.weights.begin(), one.weights.end(), all.weights.begin() + first));
    }
  }
}

TEST(SwitchRouter, LeavesPaddingOutAndSpendsNoCapacityOnIt) {
  Batch batch(4, 2, 1);
  batch.send({0, 0, 0, 0});
  batch.real = {0, 1, 0, 1};
  std::fill_n(batch.logits.begin(), 2, kNan);  // of a padding token: nobody looks
  ASSERT_TRUE(batch.route(SwitchRouter(CapacityRule::hf_4_32, 1)));
  EXPECT_THAT(batch.ids, ElementsAre(kNoExpert, 0, kNoExpert, kNoExpert));
  EXPECT_THAT(batch.weights, ElementsAre(0, 1, 0, 1));
}

TEST(SwitchRouter, RefusesANegativeCapacity) {
  Batch batch(1, 2, 1);
  EXPECT_EQ(batch.route(SwitchRouter(CapacityRule::hf, -1)).code(), Errc::invalid_argument);
  EXPECT_TRUE(batch.route(SwitchRouter(CapacityRule::none, -1)));
}

TEST(TopKSoftmaxRouter, AgreesWithSortingAllProbabilities) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    auto const experts = 1 + static_cast<std::int64_t>(random() % 64);
    auto const k = 1 + static_cast<std::int64_t>(random() % static_cast<unsigned>(experts));
    bool const renormalised = round % 2 == 0;
    Batch batch(5, experts, k);
    batch.fill(random);
    ASSERT_TRUE(batch.route(TopKSoftmaxRouter(k, renormalised ? Weights::renormalised : Weights::as_softmax)));
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      auto const p = batch.probabilities(t);
      std::vector<std::uint16_t> ids(p.size());
      std::iota(ids.begin(), ids.end(), std::uint16_t{0});
      std::stable_sort(ids.begin(), ids.end(), [&](auto a, auto b) { return p[a] > p[b]; });
      double sum = 0;
      for (std::int64_t r = 0; r < k; ++r) sum += p[ids[static_cast<std::size_t>(r)]];
      for (std::int64_t r = 0; r < k; ++r) {
        auto const expected = ids[static_cast<std::size_t>(r)];
        ASSERT_EQ(batch.out().experts(t, r), expected) << "rank " << r;
        ASSERT_NEAR(batch.out().weights(t, r), p[expected] / (renormalised ? sum : 1), 2e-6);
      }
    }
  }
}

TEST(TopKSoftmaxRouter, OrdersTiesById) {
  Batch batch(1, 6, 4);
  batch.logits = {1, 2, 1, 2, 1, 0};
  ASSERT_TRUE(batch.route(TopKSoftmaxRouter(4, Weights::as_softmax)));
  EXPECT_THAT(batch.ids, ElementsAre(1, 3, 0, 2));
}

TEST(TopKSoftmaxRouter, KeepsMaskedExpertsAtZero) {
  Batch batch(1, 3, 3);
  batch.logits = {-kInfinity, 1, -kInfinity};
  ASSERT_TRUE(batch.route(TopKSoftmaxRouter(3, Weights::renormalised)));
  EXPECT_THAT(batch.ids, ElementsAre(1, 0, 2));
  EXPECT_THAT(batch.weights, ElementsAre(1, 0, 0));
}

TEST(TopKSoftmaxRouter, LeavesPaddingOut) {
  Batch batch(2, 3, 2);
  batch.real = {0, 1};
  ASSERT_TRUE(batch.route(TopKSoftmaxRouter(2, Weights::renormalised)));
  EXPECT_THAT(batch.ids, ElementsAre(kNoExpert, kNoExpert, 0, 1));
  EXPECT_THAT(batch.weights, ElementsAre(0, 0, 0.5F, 0.5F));
}

TEST(TopKSoftmaxRouter, RefusesToChooseMoreExpertsThanThereAre) {
  Batch batch(1, 3, 4);
  Status const status = batch.route(TopKSoftmaxRouter(4, Weights::as_softmax));
  EXPECT_EQ(status.code(), Errc::invalid_argument);
  EXPECT_THAT(status.message(), HasSubstr("4 of 3 experts"));
}

/// What every built-in router owes its caller.
template <class R>
R make_router();
template <>
SwitchRouter make_router<SwitchRouter>() {
  return {CapacityRule::hf, 3};
}
template <>
TopKSoftmaxRouter make_router<TopKSoftmaxRouter>() {
  return {1, Weights::renormalised};
}

template <class R>
class AnyRouter : public testing::Test {
 protected:
  R router_ = make_router<R>();
};
using Routers = testing::Types<SwitchRouter, TopKSoftmaxRouter>;
TYPED_TEST_SUITE(AnyRouter, Routers);

TYPED_TEST(AnyRouter, NamesTheTokenWhoseLogitsAreNotNumbers) {
  for (float const bad : {kNan, kInfinity}) {
    Batch batch(4, 3, 1);
    batch.logits[2 * 3 + 1] = bad;
    Status const status = batch.route(this->router_);
    EXPECT_EQ(status.code(), Errc::invalid_argument);
    EXPECT_THAT(status.message(), HasSubstr("token 2"));
  }
  Batch masked(1, 2, 1);
  masked.logits = {-kInfinity, -kInfinity};
  EXPECT_EQ(masked.route(this->router_).code(), Errc::invalid_argument);
}

TYPED_TEST(AnyRouter, TakesHugeLogitsAndTheMostExperts) {
  Batch batch(1, 65535, 1);
  batch.logits.back() = 3e38F;
  batch.logits.front() = -3e38F;
  ASSERT_TRUE(batch.route(this->router_));
  EXPECT_THAT(batch.ids, ElementsAre(65534));
  EXPECT_THAT(batch.weights, ElementsAre(1));
  Batch more(1, 65536, 1);
  EXPECT_EQ(more.route(this->router_).code(), Errc::invalid_argument);
}

TYPED_TEST(AnyRouter, RefusesShapesThatDoNotFit) {
  Batch const good(4, 3, 1);
  auto const code = [&](auto change) {
    Batch batch = good;
    Routing<> out = batch.out();
    Matrix<float const> logits = batch.view();
    change(batch, logits, out);
    return this->router_.route(logits, batch.layout(), out).code();
  };
  EXPECT_EQ(code([](Batch&, auto&, auto&) {}), Errc::ok);
  EXPECT_EQ(code([](Batch&, auto& logits, auto&) { logits.rows = 3; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch&, auto& logits, auto&) { logits.cols = 0; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch&, auto&, auto& out) { out.experts.cols = 2; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch&, auto&, auto& out) { out.weights.rows = 3; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch& b, auto&, auto&) { b.sequence_offsets = {}; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch& b, auto&, auto&) { b.sequence_offsets = {0, 3}; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch& b, auto&, auto&) { b.sequence_offsets = {1, 4}; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch& b, auto&, auto&) { b.sequence_offsets = {0, 3, 2, 4}; }), Errc::invalid_argument);
  EXPECT_EQ(code([](Batch& b, auto&, auto&) { b.real = {1, 1, 1}; }), Errc::invalid_argument);
}

TYPED_TEST(AnyRouter, TakesAnEmptyBatch) {
  Batch batch(0, 3, 1);
  batch.sequence_offsets = {0};
  EXPECT_TRUE(batch.route(this->router_));
}

}  // namespace
}  // namespace sida
