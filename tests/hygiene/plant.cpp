// A library that breaks the rules; the checks must catch it.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <vector>

namespace sida {
__attribute__((visibility("default"))) void print_home() { std::fprintf(stderr, "%s %d\n", std::getenv("HOME"), 1); }
__attribute__((visibility("default"))) void log_home() { std::cerr << std::getenv("HOME"); }
}  // namespace sida

__attribute__((visibility("default"))) void stranger(std::vector<int>& numbers) {
  numbers.push_back(1);
  if (numbers.size() > 3) std::exit(1);
}

extern "C" __attribute__((visibility("default"))) void sida_undeclared() {}
