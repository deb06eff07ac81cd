// expect: use of deleted function|deleted constructor|invokes a deleted function
#include "sida/core/stream.hpp"

void enqueue(sida::StreamRef stream);

void use() {
  enqueue(sida::StreamRef::host());
#ifdef MISUSE
  enqueue(nullptr);
#endif
}
