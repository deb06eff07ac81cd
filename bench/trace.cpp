#include "bench/trace.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include <nlohmann/json.hpp>

namespace sida::bench {
namespace {

using Json = nlohmann::ordered_json;
using Clock = TraceSpan::Clock;

/// The lanes of one run: inference first, then the hash-building thread, then the threads that read.
class Lanes {
 public:
  explicit Lanes(std::span<TraceSpan const> spans) {
    for (auto const role : {TraceRole::inference, TraceRole::hash_building, TraceRole::reading}) {
      int of_role = 0;
      for (auto const& span : spans) {
        if (span.role != role || numbers_.contains(span.thread)) continue;
        numbers_[span.thread] = static_cast<int>(names_.size());
        names_.push_back(name(role, ++of_role));
      }
    }
  }
  int number(TraceSpan const& span) const { return numbers_.at(span.thread); }
  std::vector<std::string> const& names() const noexcept { return names_; }

 private:
  static std::string name(TraceRole role, int number) {
    switch (role) {
      case TraceRole::inference: return "inference";
      case TraceRole::hash_building: return "hash building";
      case TraceRole::reading: break;
    }
    return "reads " + std::to_string(number);
  }
  std::map<std::thread::id, int> numbers_;
  std::vector<std::string> names_;
};

std::string list(std::span<ExpertId const> experts) {
  std::string text;
  for (ExpertId const id : experts) {
    text += (text.empty() ? "" : " ") + std::to_string(id.layer) + "/" + std::to_string(id.expert);
  }
  return text;
}

/// Reads of what `wait` waits for that ended meanwhile.
std::vector<TraceSpan const*> reads_awaited(TraceSpan const& wait, std::span<TraceSpan const> spans) {
  std::vector<TraceSpan const*> reads;
  for (auto const& span : spans) {
    if (span.begin > wait.end) break;  // spans are in order of their begin
    if (span.role != TraceRole::reading || span.end <= wait.begin || span.end > wait.end) continue;
    if (std::ranges::find(wait.experts, span.experts.front()) != wait.experts.end()) reads.push_back(&span);
  }
  return reads;
}

/// Writes one run's events.
class RunWriter {
 public:
  RunWriter(TracedRun const& run, int process, Json& events)
      : run_(run), process_(process), events_(events), lanes_(run.spans) {
    if (!run.spans.empty()) start_ = run.spans.front().begin;
  }

  void write() {
    events_.push_back(event("process_name", "M", 0, {{"args", {{"name", run_.name}}}}));
    for (std::size_t i = 0; i < lanes_.names().size(); ++i) {
      int const lane = static_cast<int>(i);
      events_.push_back(event("thread_name", "M", lane, {{"args", {{"name", lanes_.names()[i]}}}}));
      events_.push_back(event("thread_sort_index", "M", lane, {{"args", {{"sort_index", lane}}}}));
    }
    for (auto const& span : run_.spans) write(span);
  }

 private:
  Json event(std::string const& name, char const* phase, int lane, Json const& more) const {
    Json json = {{"name", name}, {"ph", phase}, {"pid", process_}, {"tid", lane}};
    json.update(more);
    return json;
  }
  double micros(Clock::time_point time) const {
    return std::chrono::duration<double, std::micro>(time - start_).count();
  }

  void write(TraceSpan const& span) {
    Json arguments = Json::object();
    auto const reads = span.is_wait ? reads_awaited(span, run_.spans) : std::vector<TraceSpan const*>{};
    if (span.is_wait) {
      std::vector<ExpertId> awaited;
      for (auto const* read : reads) awaited.push_back(read->experts.front());
      arguments["waited_for"] = list(awaited);
    }
    if (!span.experts.empty()) arguments["experts"] = list(span.experts);
    events_.push_back(
        event(span.name, "X", lanes_.number(span),
              {{"ts", micros(span.begin)}, {"dur", micros(span.end) - micros(span.begin)}, {"args", arguments}}));
    for (auto const* read : reads) {
      ++arrows_;
      auto const id = std::to_string(process_) + "." + std::to_string(arrows_);
      events_.push_back(
          event("awaited", "s", lanes_.number(*read), {{"cat", "wait"}, {"id", id}, {"ts", micros(read->begin)}}));
      events_.push_back(event("awaited", "f", lanes_.number(span),
                              {{"cat", "wait"}, {"id", id}, {"bp", "e"}, {"ts", micros(span.begin)}}));
    }
  }

  TracedRun const& run_;
  int process_;
  Json& events_;
  Lanes lanes_;
  Clock::time_point start_;
  int arrows_ = 0;
};

}  // namespace

void Trace::add(TraceSpan span) {
  std::lock_guard const lock(mutex_);
  spans_.push_back(std::move(span));
}

std::vector<TraceSpan> Trace::spans() const {
  std::lock_guard const lock(mutex_);
  auto spans = spans_;
  std::ranges::stable_sort(spans, {}, &TraceSpan::begin);
  return spans;
}

std::string chrome_trace(std::span<TracedRun const> runs) {
  Json events = Json::array();
  int process = 0;
  for (auto const& run : runs) RunWriter(run, ++process, events).write();
  return Json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}.dump() + "\n";
}

}  // namespace sida::bench
