// expect: nodiscard
#include "sida/core/result.hpp"

sida::Result<int> answer();

int use() {
#ifdef MISUSE
  answer();
#endif
  auto const result = answer();
  return result ? *result : 0;
}
