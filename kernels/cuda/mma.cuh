#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/device.cuh"

/// The tensor cores' and the copy engine's instructions of sm_80 and later that CUDA C++ has no name for. Without
/// nvcc, for tests, the same by an exchange among the warp's lanes.
namespace sida::inline v0::cuda::kernels {

/// Registers of one 16x8x16 product, as PTX lays them out: lane = 4 * group + thread.
/// a: rows group, group + 8, columns 2 * thread and 2 * thread + 8. b: columns `group`, rows 2 * thread and + 8.
/// c: rows group, group + 8, columns 2 * thread, 2 * thread + 1.
struct MmaA {
  std::uint32_t r[4];
};
struct MmaB {
  std::uint32_t r[2];
};

#if defined(__CUDACC__)

/// c += a b, sums in float.
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], MmaA const& a, MmaB const& b) {
  if constexpr (std::is_same_v<T, bf16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
  }
}

/// Four 8x8 matrices of 16-bit elements from shared memory: lane l names row l % 8 of matrix l / 8, 16 bytes.
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], void const* row) {
  auto const address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// 16 bytes from device to shared memory, or zeros.
__device__ __forceinline__ void copy_async(void* to, void const* from, bool is_there) {
  auto const address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  int const bytes = is_there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// All but the last PENDING groups of this thread's copies have arrived.
template <int PENDING>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#else

template <class T>
void mma(float (&c)[4], MmaA const& a, MmaB const& b) {
  struct Operands {
    MmaA a;
    MmaB b;
  };
  auto const lanes = cuda_on_host_exchange(Operands{a, b});
  unsigned const group = threadIdx.x % kWarp / 4;
  unsigned const thread = threadIdx.x % 4;
  auto const half = [](std::uint32_t word, int index) {
    return widen(T{static_cast<std::uint16_t>(index == 0 ? word & 0xFFFFU : word >> 16)});
  };
  for (int k = 0; k < 16; k += 2) {
    unsigned const holder = static_cast<unsigned>(k) % 8 / 2;
    int const later = k / 8;  // half of k
    MmaA const rows = lanes[group * 4 + holder].a;
    std::uint32_t const left = lanes[thread * 8 + holder].b.r[later];
    std::uint32_t const right = lanes[thread * 8 + 4 + holder].b.r[later];
    for (int i = 0; i < 2; ++i) {
      float const upper = half(rows.r[2 * later], i);
      float const lower = half(rows.r[2 * later + 1], i);
      c[0] += upper * half(left, i);
      c[1] += upper * half(right, i);
      c[2] += lower * half(left, i);
      c[3] += lower * half(right, i);
    }
  }
}

inline void load_matrices(std::uint32_t (&r)[4], void const* row) {
  auto const rows = cuda_on_host_exchange(static_cast<std::byte const*>(row));
  unsigned const lane = threadIdx.x % kWarp;
  for (unsigned i = 0; i < 4; ++i) std::memcpy(&r[i], rows[i * 8 + lane / 4] + lane % 4 * 4, 4);
}

inline void copy_async(void* to, void const* from, bool is_there) {
  if (is_there) {
    std::memcpy(to, from, 16);
  } else {
    std::memset(to, 0, 16);
  }
}
inline void commit_copies() {}
template <int PENDING>
void wait_for_copies() {}

#endif

}  // namespace sida::inline v0::cuda::kernels
