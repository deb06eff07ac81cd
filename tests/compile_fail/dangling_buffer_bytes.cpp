// expect: use of deleted function|call to deleted
#include <utility>

#include "sida/core/memory.hpp"

std::size_t use(sida::Buffer buffer) {
#ifdef MISUSE
  return std::move(buffer).bytes().size();
#else
  return buffer.bytes().size();
#endif
}
