// A library that breaks the rules; the checks must catch it.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <unistd.h>
#include <vector>

namespace sida {
__attribute__((visibility("default"))) void print_home() { std::fprintf(stderr, "%s %d\n", std::getenv("HOME"), 1); }
__attribute__((visibility("default"))) void log_home() { std::cerr << std::getenv("HOME"); }
__attribute__((visibility("default"))) bool signal_all() {
  return std::raise(SIGTERM) == 0 && ::kill(0, SIGTERM) == 0 && ::write(1, "", 1) == 1;
}
}  // namespace sida

__attribute__((visibility("default"))) void stranger(std::vector<int>& numbers) {
  numbers.push_back(1);
  if (numbers.size() > 3) std::exit(1);
}

extern "C" __attribute__((visibility("default"))) void sida_undeclared() {}
