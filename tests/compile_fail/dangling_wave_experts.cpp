// expect: use of deleted function|call to deleted
#include "sida/store/expert_store.hpp"

sida::Wave acquire();

std::size_t use() {
#ifdef MISUSE
  return acquire().experts().size();
#else
  sida::Wave const wave = acquire();
  return wave.experts().size();
#endif
}
