#pragma once

#include <utility>

/// Internal shorthands for the two patterns that every fallible function repeats.
/// SIDA_TRY(expr)            returns from the enclosing function when the Status is a failure.
/// SIDA_TRY_ASSIGN(lhs, expr) declares or assigns lhs from a Result, or returns its Error.
#define SIDA_TRY(...)                                                  \
  do {                                                                 \
    if (auto sida_status = (__VA_ARGS__); !sida_status) [[unlikely]] { \
      return std::move(sida_status).error();                           \
    }                                                                  \
  } while (false)

#define SIDA_DETAIL_CONCAT2(a, b) a##b
#define SIDA_DETAIL_CONCAT(a, b) SIDA_DETAIL_CONCAT2(a, b)
#define SIDA_DETAIL_TRY_ASSIGN(result, lhs, ...) \
  auto result = (__VA_ARGS__);                   \
  if (!result) [[unlikely]] {                    \
    return std::move(result).error();            \
  }                                              \
  lhs = *std::move(result)
#define SIDA_TRY_ASSIGN(lhs, ...) SIDA_DETAIL_TRY_ASSIGN(SIDA_DETAIL_CONCAT(sida_result_, __LINE__), lhs, __VA_ARGS__)
