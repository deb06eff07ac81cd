// expect: constraints not satisfied|no match|no viable function|does not provide a call operator
#include "sida/core/matrix.hpp"

float use(sida::Matrix<float> host, sida::Matrix<float, sida::Tier::device> device) {
#ifdef MISUSE
  return device(0, 0);
#else
  (void)device;
  return host(0, 0);
#endif
}
