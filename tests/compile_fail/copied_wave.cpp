// expect: use of deleted function|call to (implicitly-)?deleted|deleted (copy )?constructor
#include <utility>

#include "sida/store/expert_store.hpp"

sida::Wave use(sida::Wave& wave) {
#ifdef MISUSE
  return wave;
#else
  return std::move(wave);
#endif
}
