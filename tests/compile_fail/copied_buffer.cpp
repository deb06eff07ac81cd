// expect: use of deleted function|call to (implicitly-)?deleted|deleted (copy )?constructor
#include <utility>

#include "sida/core/memory.hpp"

sida::Buffer use(sida::Buffer& buffer) {
#ifdef MISUSE
  return buffer;
#else
  return std::move(buffer);
#endif
}
