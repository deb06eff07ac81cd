#pragma once

// GCC keeps sums in registers throughout only if it unrolls the loops over a tile before all else.
#ifdef __clang__
#define SIDA_UNROLLED _Pragma("unroll")
#else
#define SIDA_UNROLLED _Pragma("GCC unroll 16")
#endif
