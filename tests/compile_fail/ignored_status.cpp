// expect: nodiscard
#include "sida/core/result.hpp"

sida::Status act();

bool use() {
#ifdef MISUSE
  act();
#endif
  return static_cast<bool>(act());
}
