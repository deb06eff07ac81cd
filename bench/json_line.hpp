#pragma once

#include <cstdio>
#include <string>

namespace sida::bench {

/// One line of JSON on standard output: {"bench": …, key: number, …}.
class JsonLine {
 public:
  explicit JsonLine(char const* bench) { text_ = std::string("{\"bench\": \"") + bench + "\""; }
  JsonLine& add(char const* key, double value) {
    char number[64];
    std::snprintf(number, sizeof number, "%.6g", value);
    text_ += std::string(", \"") + key + "\": " + number;
    return *this;
  }
  JsonLine& add(char const* key, std::string const& value) {
    text_ += std::string(", \"") + key + "\": \"" + value + "\"";
    return *this;
  }
  ~JsonLine() {
    std::printf("%s}\n", text_.c_str());
    std::fflush(stdout);
  }
  JsonLine(JsonLine const&) = delete;
  JsonLine& operator=(JsonLine const&) = delete;

 private:
  std::string text_;
};

}  // namespace sida::bench
