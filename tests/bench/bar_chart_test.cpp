#include "bench/bar_chart.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sida::bench::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

BarChart chart() {
  return {.title = "Fast & slow",
          .subtitles = {"a <line>"},
          .first_name = "work",
          .second_name = "wait",
          .mark_name = "least",
          .axis_name = "seconds",
          .axis_end = 2,
          .bars = {{.label = "one", .first = 0.5, .second = 0.5, .mark = 0.75, .note = "note 1"},
                   {.label = "two", .first = 1, .second = 9, .mark = 8, .note = "note 2"}}};
}

TEST(BarChart, SaysEverythingAndEscapesIt) {
  std::string const svg = to_svg(chart());
  for (auto const* words : {"Fast &amp; slow", "a &lt;line&gt;", "work", "wait", "least", "seconds", "one", "two",
                            "note 1", "note 2", "</svg>"}) {
    EXPECT_THAT(svg, HasSubstr(words));
  }
  EXPECT_THAT(svg, Not(HasSubstr("& ")));
}

TEST(BarChart, CutsABarAtTheEndOfTheAxis) {
  BarChart whole = chart();
  whole.bars.pop_back();
  EXPECT_THAT(to_svg(whole), Not(HasSubstr("stroke=\"#ffffff\"")));
  EXPECT_THAT(to_svg(chart()), HasSubstr("stroke=\"#ffffff\"")) << "slashes across the bar";
}

}  // namespace
}  // namespace sida::bench::test
