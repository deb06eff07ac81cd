// expect: (cannot|could not) (be )?convert|no viable conversion
#include "sida/core/matrix.hpp"

sida::Matrix<float const> read_only(sida::Matrix<float> x) { return x; }

#ifdef MISUSE
sida::Matrix<float> writable(sida::Matrix<float const> x) { return x; }
#endif
