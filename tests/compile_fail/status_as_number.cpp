// expect: (cannot|could not) (be )?convert|no viable conversion
#include "sida/core/result.hpp"

int use(sida::Status const& status) {
#ifdef MISUSE
  int const code = status;
  return code;
#else
  return status ? 0 : 1;
#endif
}
