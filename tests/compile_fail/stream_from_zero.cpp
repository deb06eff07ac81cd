// expect: use of deleted function|deleted constructor|invokes a deleted function|ambiguous
#include "sida/core/stream.hpp"

void enqueue(sida::StreamRef stream);

void use() {
  enqueue(sida::StreamRef::native(nullptr));
#ifdef MISUSE
  enqueue(0);
#endif
}
