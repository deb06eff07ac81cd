#include "io/json.hpp"

#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida::io_detail {
namespace {

using ::testing::HasSubstr;

TEST(Json, KeepsIntegersNegativesAndFractionsApart) {
  auto const json = parse_json(R"({"u": 18446744073709551615, "i": -3, "f": 2.5, "whole": 2.0, "big": 1e300,
                                   "over": 18446744073709551616, "minus_zero": -0, "s": "x", "null": null})",
                               "c.json");
  ASSERT_TRUE(json) << json.message();
  EXPECT_EQ(*get_uint(*json, "u", "c.json"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(*get_int(*json, "i", "c.json"), -3);
  EXPECT_EQ(*get_number(*json, "f", "c.json"), 2.5);
  EXPECT_EQ(*get_number(*json, "u", "c.json"), 18446744073709551616.0);
  struct Case {
    char const* key;
    Errc code;
    char const* why;
  };
  for (Case const& c : {Case{"i", Errc::corrupt, "negative"}, Case{"f", Errc::corrupt, "not an integer: 2.5"},
                        Case{"whole", Errc::corrupt, "not an integer"}, Case{"big", Errc::corrupt, "out of range"},
                        Case{"over", Errc::corrupt, "out of range"}, Case{"minus_zero", Errc::corrupt, "negative"},
                        Case{"s", Errc::corrupt, "not an integer but string"}, Case{"null", Errc::not_found, "no key"},
                        Case{"absent", Errc::not_found, "no key"}}) {
    auto const value = get_uint(*json, c.key, "c.json");
    ASSERT_FALSE(value) << c.key;
    EXPECT_EQ(value.code(), c.code) << value.message();
    EXPECT_THAT(value.message(), HasSubstr("c.json"));
    EXPECT_THAT(value.message(), HasSubstr(c.key));
    EXPECT_THAT(value.message(), HasSubstr(c.why));
  }
  EXPECT_FALSE(get_int(*json, "u", "c.json"));
  EXPECT_FALSE(get_bool(*json, "u", "c.json"));
  EXPECT_FALSE(get_string(*json, "u", "c.json"));
  EXPECT_EQ(*get_string(*json, "s", "c.json"), "x");
}

TEST(Json, AcceptsAnyValueAtTheTop) {
  EXPECT_EQ(parse_json("3", "f")->get<int>(), 3);
  EXPECT_EQ(parse_json(" [1, [2, {\"a\": [true, false, null]}]] ", "f")->dump(), R"([1,[2,{"a":[true,false,null]}]])");
  EXPECT_EQ(get_uint(*parse_json("[]", "f"), "a", "f").code(), Errc::corrupt);
}

struct BadText {
  char const* label;
  std::string text;
  char const* why;
};
void PrintTo(BadText const& bad, std::ostream* out) { *out << bad.label; }

class BadJson : public ::testing::TestWithParam<BadText> {};

TEST_P(BadJson, IsCorruptAndNamesFileAndByte) {
  for (bool const by_member : {false, true}) {
    Status const status = by_member ? for_each_member(GetParam().text, "bad.json", {},
                                                      [](auto const&, auto const&, std::size_t) { return Status(); })
                                    : parse_json(GetParam().text, "bad.json").status();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.code(), Errc::corrupt);
    EXPECT_THAT(status.message(), HasSubstr("bad.json: JSON byte "));
    EXPECT_THAT(status.message(), HasSubstr(GetParam().why));
    EXPECT_LT(status.message().size(), 300U);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Json, BadJson,
    ::testing::Values(
        BadText{"empty", "", "byte 0"}, BadText{"truncated", R"({"a": 1)", "byte 7"},
        BadText{"trailing", R"({"a": 1} x)", "byte 10"}, BadText{"twice", R"({"a": 1, "a": 2})", "'a' occurs twice"},
        BadText{"twice_inside", R"({"x": {"a": 1, "a": 2}})", "'a' occurs twice"},
        BadText{"twice_by_escape", R"({"a": 1, "\u0061": 2})", "'a' occurs twice"},
        BadText{"nul_hides_the_rest", std::string("{}\0{", 4), "NUL"},
        BadText{"bad_utf8", "{\"a\": \"\xC3\x28\"}", "UTF-8"},
        BadText{"lone_surrogate", R"({"a": "\ud800"})", "surrogate"}, BadText{"not_a_number", R"({"a": NaN})", "byte"},
        BadText{"infinite", R"({"a": 1e999})", "overflow"}, BadText{"leading_zero", R"({"a": 01})", "byte"},
        BadText{"comment", "{} // c", "byte"}, BadText{"trailing_comma", R"({"a": 1,})", "byte"},
        BadText{"long_token", R"({"a": )" + std::string(100'000, 'x') + "}", "byte"},
        BadText{"deep", R"({"a":)" + std::string(16, '[') + std::string(16, ']') + "}", "deeper than 16"},
        BadText{"very_deep", std::string(1'000'000, '['), "byte"}),
    [](auto const& instance) { return std::string(instance.param.label); });

TEST(Json, AcceptsSixteenLevels) {
  EXPECT_TRUE(parse_json(R"({"a":)" + std::string(15, '[') + std::string(15, ']') + "}", "f"));
}

TEST(Json, LimitsBytesAndValues) {
  EXPECT_EQ(parse_json("[1,2,3]", "f", {.max_bytes = 6}).code(), Errc::corrupt);
  EXPECT_EQ(parse_json("[1,2,3]", "f", {.max_values = 3}).code(), Errc::corrupt);
  EXPECT_TRUE(parse_json("[1,2,3]", "f", {.max_bytes = 7, .max_values = 4}));
}

TEST(Json, HandsOverMembersInOrderWithTheirPlace) {
  std::string const text = R"({"b": [1, {"c": 2}], "a": "s", "n": null})";
  std::vector<std::string> seen;
  auto const status = for_each_member(text, "f", {}, [&](std::string const& key, Json const& value, std::size_t at) {
    EXPECT_EQ(text[at - 1], '"');
    EXPECT_EQ(text[at], ':');
    seen.push_back(key + "=" + value.dump());
    return Status();
  });
  EXPECT_TRUE(status) << status.message();
  EXPECT_THAT(seen, ::testing::ElementsAre(R"(b=[1,{"c":2}])", R"(a="s")", "n=null"));
}

TEST(Json, StopsAtTheFirstMemberThatFails) {
  int calls = 0;
  auto const status = for_each_member(R"({"a": 1, "b": 2})", "f", {}, [&](auto const&, auto const&, std::size_t) {
    ++calls;
    return Status(Errc::unsupported, "no");
  });
  EXPECT_EQ(status.code(), Errc::unsupported);
  EXPECT_EQ(calls, 1);
}

TEST(Json, MembersWantAnObject) {
  for (char const* const text : {"[]", "3", "null", "\"s\""}) {
    EXPECT_EQ(for_each_member(text, "f", {}, [](auto const&, auto const&, std::size_t) { return Status(); }).code(),
              Errc::corrupt);
  }
}

TEST(Json, QuotesHostileTextForMessages) {
  EXPECT_EQ(in_quotes("a.b"), "'a.b'");
  EXPECT_EQ(in_quotes("a\n\x1B\xFF"), "'a\\x0a\\x1b\\xff'");
  EXPECT_LT(in_quotes(std::string(1'000'000, 'x')).size(), 130U);
}

}  // namespace
}  // namespace sida::io_detail
