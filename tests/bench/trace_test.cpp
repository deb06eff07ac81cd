#include "bench/trace.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sida::bench::test {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;

std::vector<Json> events_of(Json const& trace, std::string const& phase) {
  std::vector<Json> events;
  for (auto const& event : trace["traceEvents"]) {
    if (event["ph"] == phase) events.push_back(event);
  }
  return events;
}

TEST(Trace, NamesWhoWaitedForWhat) {
  std::thread::id reader;
  std::thread([&] { reader = std::this_thread::get_id(); }).join();
  auto const at = TraceSpan::Clock::now();
  Trace trace;
  // Out of order: spans are added when they end.
  trace.add({.name = "wait", .begin = at + 2ms, .end = at + 5ms, .experts = {{0, 1}, {0, 2}}, .is_wait = true});
  auto const read = [&](ExpertId id, std::chrono::milliseconds begin, std::chrono::milliseconds end) {
    trace.add({.role = TraceRole::reading,
               .name = "read",
               .begin = at + begin,
               .end = at + end,
               .experts = {id},
               .thread = reader});
  };
  read({0, 1}, 0ms, 1ms);  // was there before
  read({0, 2}, 1ms, 5ms);  // this one
  read({1, 0}, 2ms, 4ms);  // for somebody else
  std::vector<TracedRun> const runs = {{.name = "an arm", .spans = trace.spans()}};
  Json const json = Json::parse(chrome_trace(runs));

  auto const spans = events_of(json, "X");
  ASSERT_EQ(spans.size(), 4U);
  EXPECT_EQ(spans[0]["ts"], 0.0);
  for (auto const& span : spans) {
    if (span["name"] != "wait") continue;
    EXPECT_EQ(span["dur"], 3000.0);
    EXPECT_EQ(span["args"]["experts"], "0/1 0/2");
    EXPECT_EQ(span["args"]["waited_for"], "0/2");
  }
  ASSERT_EQ(events_of(json, "s").size(), 1U);
  ASSERT_EQ(events_of(json, "f").size(), 1U);
  EXPECT_EQ(events_of(json, "s")[0]["id"], events_of(json, "f")[0]["id"]);
  std::vector<std::string> names;
  for (auto const& event : events_of(json, "M")) {
    if (event["args"].contains("name")) names.push_back(event["args"]["name"]);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"an arm", "inference", "reads 1"}));
}

TEST(Trace, IsOffUntilTurnedOn) {
  Trace trace;
  EXPECT_FALSE(trace.is_on());
  trace.turn_on();
  EXPECT_TRUE(trace.is_on());
  trace.turn_off();
  EXPECT_FALSE(trace.is_on());
}

}  // namespace
}  // namespace sida::bench::test
