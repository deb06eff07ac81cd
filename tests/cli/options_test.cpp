#include "cli/options.hpp"

#include <cstdint>
#include <string>

#include <CLI/CLI.hpp>
#include <gtest/gtest.h>

#include "cli/run_setup.hpp"

namespace sida::cli {
namespace {

std::uint64_t bytes(std::string const& text, std::uint64_t experts = 64, std::uint64_t slot_bytes = 4096) {
  auto const budget = Budget::parse(text);
  EXPECT_TRUE(budget) << text;
  return budget ? budget->bytes(experts, slot_bytes) : 0;
}

TEST(Budget, IsAllExpertsByDefault) { EXPECT_EQ(Budget().bytes(64, 4096), 64U * 4096); }

TEST(Budget, CountsAShareInWholeSlots) {
  EXPECT_EQ(bytes("100%"), 64U * 4096);
  EXPECT_EQ(bytes("20%"), 12U * 4096);  // floor(12.8)
  EXPECT_EQ(bytes("12.5%"), 8U * 4096);
  EXPECT_EQ(bytes("0.5%"), 4096U);  // at least one
  EXPECT_EQ(bytes("0%"), 4096U);
  EXPECT_EQ(bytes("29%", 100), 29U * 4096);  // 0.29 * 100 is less than 29 in binary
}

TEST(Budget, TakesBytesAsTheyAre) {
  EXPECT_EQ(bytes("4096"), 4096U);
  EXPECT_EQ(bytes("0"), 0U);
  EXPECT_EQ(bytes("512MiB"), std::uint64_t{512} << 20);
  EXPECT_EQ(bytes("1.5GiB"), std::uint64_t{3} << 29);
  EXPECT_EQ(bytes("2GB"), 2'000'000'000U);
  EXPECT_EQ(bytes("3KiB"), 3072U);
  EXPECT_EQ(bytes("7B"), 7U);
  EXPECT_EQ(bytes("18446744073709551615"), UINT64_MAX);
}

TEST(Budget, RefusesEverythingElse) {
  for (auto const* const text : {"",
                                 "-1",
                                 "+1",
                                 "-20%",
                                 "20 %",
                                 " 20%",
                                 "20%%",
                                 "%",
                                 "101%",
                                 "100.1%",
                                 "1e9",
                                 "0x10",
                                 "1.5",
                                 "1.",
                                 ".5",
                                 "1.%",
                                 "512mib",
                                 "512M",
                                 "MiB",
                                 "1,000",
                                 "nan",
                                 "inf",
                                 "18446744073709551616",
                                 "18446744073709551615KiB",
                                 "20%MiB",
                                 "1.0000000001GiB",
                                 "\u22125"}) {
    EXPECT_FALSE(Budget::parse(text)) << text;
  }
}

TEST(Number, IsDigitsWithinARange) {
  EXPECT_EQ(*parse_number("0", 0, 10), 0U);
  EXPECT_EQ(*parse_number("10", 0, 10), 10U);
  for (auto const* const text : {"", "-1", "+1", "11", "1.0", " 1", "1 ", "0x1", "18446744073709551616"}) {
    EXPECT_FALSE(parse_number(text, 0, 10)) << text;
  }
}

TEST(Isa, IsOneThatTheProcessorRuns) {
  CpuIsa const runnable[] = {CpuIsa::portable, CpuIsa::avx2};
  EXPECT_NO_THROW(check_isa(CpuIsa::avx2, runnable));
  try {
    check_isa(CpuIsa::amx_bf16, runnable);
    FAIL() << "took an instruction set that isn't there";
  } catch (CLI::ValidationError const& error) {
    EXPECT_STREQ(error.what(), "--isa: this processor does not run amx_bf16, but: portable, avx2");
  }
}

}  // namespace
}  // namespace sida::cli
