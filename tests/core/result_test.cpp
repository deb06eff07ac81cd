#include "sida/core/result.hpp"

#include <memory>
#include <string>

#include <gtest/gtest.h>

namespace {

using sida::Errc;
using sida::Error;
using sida::Result;
using sida::Status;

TEST(Status, IsSuccessByDefault) {
  Status const status;
  EXPECT_TRUE(status);
  EXPECT_EQ(status.code(), Errc::ok);
  EXPECT_TRUE(status.message().empty());
}

TEST(Status, CarriesCodeAndMessage) {
  Status const status(Errc::io, "weights.bin: short read");
  EXPECT_FALSE(status);
  EXPECT_EQ(status.code(), Errc::io);
  EXPECT_EQ(status.message(), "weights.bin: short read");
  EXPECT_EQ(status.error().code(), Errc::io);
}

TEST(Error, TakesContextInFront) {
  Error const error = Error(Errc::corrupt, "checksum").with_context("layer 3 expert 17").with_context("model.sida");
  EXPECT_EQ(error.message(), "model.sida: layer 3 expert 17: checksum");
  EXPECT_EQ(error.code(), Errc::corrupt);
}

TEST(Result, HoldsAValue) {
  Result<std::string> result(std::string("value"));
  ASSERT_TRUE(result);
  EXPECT_TRUE(result.has_value());
  EXPECT_EQ(*result, "value");
  EXPECT_EQ(result->size(), 5U);
  EXPECT_EQ(result.code(), Errc::ok);
  EXPECT_TRUE(result.status());
}

TEST(Result, HoldsAnError) {
  Result<std::string> const result(Errc::not_found, "no such tensor");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.code(), Errc::not_found);
  EXPECT_EQ(result.message(), "no such tensor");
  EXPECT_EQ(result.status().code(), Errc::not_found);
}

TEST(Result, PassesAFailedStatusOn) {
  auto const fail = []() -> Result<int> {
    Status status(Errc::cancelled, "stopped");
    return status;
  };
  EXPECT_EQ(fail().code(), Errc::cancelled);
  EXPECT_EQ(fail().message(), "stopped");
}

TEST(Result, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(7));
  ASSERT_TRUE(result);
  std::unique_ptr<int> const value = *std::move(result);
  EXPECT_EQ(*value, 7);
}

TEST(Result, ConvertsToItsValueType) {
  auto const make = []() -> Result<std::string> { return "from a literal"; };
  EXPECT_EQ(*make(), "from a literal");
}

// A string can be made of nothing and of much, so an Error must not be taken for a value of such a type.
TEST(Result, PrefersTheErrorToAValueMadeOfIt) {
  struct Greedy {
    Greedy() = default;
    explicit Greedy(Error const&) {}
    explicit Greedy(Status const&) {}
  };
  EXPECT_FALSE(Result<Greedy>(Error(Errc::io, "x")));
  EXPECT_FALSE(Result<Greedy>(Status(Errc::io, "x")));
}

TEST(Errc, HasANameEach) {
  std::string names;
  for (int i = 0; i <= static_cast<int>(Errc::device); ++i) {
    auto const name = std::string(to_string(static_cast<Errc>(i)));
    EXPECT_NE(name, "unknown") << i;
    EXPECT_EQ(names.find(name + ";"), std::string::npos) << name << " twice";
    names += name + ";";
  }
  EXPECT_EQ(to_string(static_cast<Errc>(200)), "unknown");
  EXPECT_EQ(to_string(Errc::over_budget), "over_budget");
}

}  // namespace
