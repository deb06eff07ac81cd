#pragma once

// Stands in for the part of the CUDA runtime that sida calls: names, signatures and numbers are CUDA's, everything
// runs on the host. A kernel is an ordinary function here, and each of its threads a fiber: see ../block.cpp.

#include <cstring>
#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <tuple>
#include <type_traits>
#include <utility>

#define CUDART_VERSION 13000

// ---- Types

#define CUDA_ON_HOST_ERRORS(X)                                              \
  X(cudaSuccess, 0, "no error")                                             \
  X(cudaErrorInvalidValue, 1, "invalid argument")                           \
  X(cudaErrorMemoryAllocation, 2, "out of memory")                          \
  X(cudaErrorInitializationError, 3, "initialization error")                \
  X(cudaErrorInvalidConfiguration, 9, "invalid configuration")              \
  X(cudaErrorInsufficientDriver, 35, "driver too old for the runtime")      \
  X(cudaErrorInvalidDeviceFunction, 98, "invalid device function")          \
  X(cudaErrorNoDevice, 100, "no device")                                    \
  X(cudaErrorInvalidDevice, 101, "invalid device ordinal")                  \
  X(cudaErrorNoKernelImageForDevice, 209, "no kernel image for the device") \
  X(cudaErrorInvalidResourceHandle, 400, "invalid handle")                  \
  X(cudaErrorNotReady, 600, "not ready")                                    \
  X(cudaErrorIllegalAddress, 700, "illegal memory access")                  \
  X(cudaErrorHostMemoryAlreadyRegistered, 712, "memory already registered") \
  X(cudaErrorHostMemoryNotRegistered, 713, "memory not registered")         \
  X(cudaErrorMisalignedAddress, 716, "misaligned address")                  \
  X(cudaErrorLaunchFailure, 719, "launch failure")                          \
  X(cudaErrorNotPermitted, 800, "not permitted")                            \
  X(cudaErrorNotSupported, 801, "not supported")                            \
  X(cudaErrorUnknown, 999, "unknown error")
#define CUDA_ON_HOST_ENUMERATOR(name, number, text) name = number,
typedef enum cudaError { CUDA_ON_HOST_ERRORS(CUDA_ON_HOST_ENUMERATOR) } cudaError_t;

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4
};

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;

#define cudaHostRegisterDefault 0x00
#define cudaHostRegisterPortable 0x01
#define cudaHostRegisterReadOnly 0x08
#define cudaStreamDefault 0x00
#define cudaStreamNonBlocking 0x01
#define cudaEventDefault 0x00
#define cudaEventBlockingSync 0x01
#define cudaEventDisableTiming 0x02

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  size_t sharedMemPerBlock;
  int warpSize;
  int maxThreadsPerBlock;
  int major;
  int minor;
  int multiProcessorCount;
  int l2CacheSize;
};

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};

#define CUDA_ON_HOST_VECTORS(T, T2, T4)               \
  struct alignas(8) T2 {                              \
    T x, y;                                           \
  };                                                  \
  struct alignas(16) T4 {                             \
    T x, y, z, w;                                     \
  };                                                  \
  constexpr T2 make_##T2(T x, T y) { return {x, y}; } \
  constexpr T4 make_##T4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_ON_HOST_VECTORS(int, int2, int4)
CUDA_ON_HOST_VECTORS(unsigned, uint2, uint4)
CUDA_ON_HOST_VECTORS(float, float2, float4)
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

enum cudaLaunchAttributeID { cudaLaunchAttributeIgnore = 0, cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
union cudaLaunchAttributeValue {
  char pad[64];
  int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes;  // must be 0 here
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;  // without effect
  unsigned numAttrs;
};

// ---- Functions

extern "C" {
char const* cudaGetErrorName(cudaError_t error);
char const* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDriverGetVersion(int* version);

cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** pointer, size_t size);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocHost(void** pointer, size_t size);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaHostRegister(void* pointer, size_t size, unsigned flags);
cudaError_t cudaHostUnregister(void* pointer);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
}
// With default arguments or overloads, as in C++ code CUDA's have.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy(void* to, void const* from, size_t count, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t count, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, size_t count);
cudaError_t cudaMemsetAsync(void* to, int value, size_t count, cudaStream_t stream = nullptr);

template <class T>
cudaError_t cudaMalloc(T** pointer, size_t size) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), size);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, size_t size) {
  return cudaMallocHost(reinterpret_cast<void**>(pointer), size);
}
template <class T>
cudaError_t cudaFuncSetAttribute(T*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

namespace cuda_on_host {

/// Queues a launch whose threads each call `body`.
cudaError_t launch(cudaLaunchConfig_t const& config, std::function<void()> body);

/// What the lanes of a warp named in `mask` do together. Lanes that have exited count as arrived.
enum class Together { sync, exchange, ballot };
/// Waits for the lanes of `mask`; returns the value that lane `source` brought, or, for a ballot, a bit for each lane
/// that brought something other than 0. A lane that isn't there gives all bits 1.
uint64_t together(Together what, unsigned mask, uint64_t value = 0, unsigned source = 0);
unsigned lane_id();  // within the warp
[[noreturn]] void trap();

template <class T>
T exchange(unsigned mask, T value, unsigned source) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = together(Together::exchange, mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace cuda_on_host

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(Params...), Args&&... args) {
  return [&](Params... converted) {
    return cuda_on_host::launch(*config, [kernel, bound = std::tuple<std::remove_cv_t<Params>...>(converted...)] {
      std::apply(kernel, bound);
    });
  }(std::forward<Args>(args)...);
}

// ---- The language of kernels

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// Blocks that run at one time must not share it. AddressSanitizer guards the ends of plain static arrays only, so under
// it one block of the process runs at a time; otherwise each thread that runs blocks has its own.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread uint3 blockDim;
extern __thread uint3 gridDim;
inline constexpr int warpSize = 32;

void __syncthreads();
inline void __syncwarp(unsigned mask = 0xffffffffU) { cuda_on_host::together(cuda_on_host::Together::sync, mask); }
[[noreturn]] inline void __trap() { cuda_on_host::trap(); }

// A lane whose source lies outside its group of `width` lanes gets its own value back.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  unsigned const group = static_cast<unsigned>(width) - 1;
  return cuda_on_host::exchange(mask, value,
                                (cuda_on_host::lane_id() & ~group) | (static_cast<unsigned>(source) & group));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  unsigned const lane = cuda_on_host::lane_id(), place = lane & (static_cast<unsigned>(width) - 1);
  return cuda_on_host::exchange(mask, value, delta > place ? lane : lane - delta);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  unsigned const lane = cuda_on_host::lane_id(), place = lane & (static_cast<unsigned>(width) - 1);
  return cuda_on_host::exchange(mask, value, delta >= static_cast<unsigned>(width) - place ? lane : lane + delta);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize) {
  unsigned const lane = cuda_on_host::lane_id(), last = lane | (static_cast<unsigned>(width) - 1);
  unsigned const source = lane ^ static_cast<unsigned>(bits);
  return cuda_on_host::exchange(mask, value, source > last ? lane : source);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(cuda_on_host::together(cuda_on_host::Together::ballot, mask, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
template <class T>
T __ldg(T const* pointer) {
  return *pointer;
}

namespace cuda_on_host {
template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace cuda_on_host
inline unsigned __float_as_uint(float x) { return cuda_on_host::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_on_host::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_host::bits_as<float>(x); }
inline float __int_as_float(int x) { return cuda_on_host::bits_as<float>(x); }

inline float rsqrtf(float x) { return 1.0F / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }

inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(double x, double y) { return fmax(x, y); }
template <class T, class U>
requires(std::is_integral_v<T>&& std::is_integral_v<U>) constexpr auto min(T x, U y) {
  using Common = std::common_type_t<T, U>;  // of int and unsigned: unsigned, as in CUDA
  return static_cast<Common>(x) < static_cast<Common>(y) ? static_cast<Common>(x) : static_cast<Common>(y);
}
template <class T, class U>
requires(std::is_integral_v<T>&& std::is_integral_v<U>) constexpr auto max(T x, U y) {
  using Common = std::common_type_t<T, U>;
  return static_cast<Common>(x) < static_cast<Common>(y) ? static_cast<Common>(y) : static_cast<Common>(x);
}

// Relaxed, as CUDA's are: they order nothing else.
inline int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* at, unsigned value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
inline float atomicAdd(float* at, float value) {
  float old, sum;
  __atomic_load(at, &old, __ATOMIC_RELAXED);
  do {
    sum = old + value;
  } while (!__atomic_compare_exchange(at, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
