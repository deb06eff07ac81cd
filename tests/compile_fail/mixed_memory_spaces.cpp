// expect: (cannot|could not) (be )?convert|no (viable conversion|matching function)
#include "sida/core/matrix.hpp"

void run_on_device(sida::Matrix<float const, sida::Tier::device> x);

void use(sida::Matrix<float> host, sida::Matrix<float, sida::Tier::device> device) {
  run_on_device(device);
#ifdef MISUSE
  run_on_device(host);
#else
  (void)host;
#endif
}
