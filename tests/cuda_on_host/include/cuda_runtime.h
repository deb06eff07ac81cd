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

// ---- Types

#define CUDA_ON_HOST_ERRORS(X)                                              \
  X(cudaSuccess, 0, "no error")                                             \
  X(cudaErrorInvalidValue, 1, "invalid argument")                           \
  X(cudaErrorMemoryAllocation, 2, "out of memory")                          \
  X(cudaErrorInitializationError, 3, "initialization error")                \
  X(cudaErrorInvalidConfiguration, 9, "invalid configuration")              \
  X(cudaErrorInsufficientDriver, 35, "driver too old for the runtime")      \
  X(cudaErrorNoDevice, 100, "no device")                                    \
  X(cudaErrorInvalidDevice, 101, "invalid device ordinal")                  \
  X(cudaErrorNoKernelImageForDevice, 209, "no kernel image for the device") \
  X(cudaErrorInvalidResourceHandle, 400, "invalid handle")                  \
  X(cudaErrorIllegalAddress, 700, "illegal memory access")                  \
  X(cudaErrorHostMemoryAlreadyRegistered, 712, "memory already registered") \
  X(cudaErrorHostMemoryNotRegistered, 713, "memory not registered")         \
  X(cudaErrorLaunchFailure, 719, "launch failure")                          \
  X(cudaErrorNotSupported, 801, "not supported")                            \
  X(cudaErrorUnknown, 999, "unknown error")
#define CUDA_ON_HOST_ENUMERATOR(name, number, text) name = number,
typedef enum cudaError { CUDA_ON_HOST_ERRORS(CUDA_ON_HOST_ENUMERATOR) } cudaError_t;

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;

#define cudaHostRegisterPortable 0x01
#define cudaStreamPerThread reinterpret_cast<cudaStream_t>(2)
#define cudaStreamNonBlocking 0x01
#define cudaEventDisableTiming 0x02

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
union cudaLaunchAttributeValue {
  int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
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
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaFuncSetAttribute(void const* kernel, cudaFuncAttribute attribute, int value);

cudaError_t cudaMalloc(void** pointer, size_t size);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaHostRegister(void* pointer, size_t size, unsigned flags);
cudaError_t cudaHostUnregister(void* pointer);
cudaError_t cudaMemcpy(void* to, void const* from, size_t count, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t count, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemset(void* to, int value, size_t count);
cudaError_t cudaMemsetAsync(void* to, int value, size_t count, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
}

template <class T>
cudaError_t cudaMalloc(T** pointer, size_t size) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), size);
}

namespace cuda_on_host {

/// Queues a launch of `kernel` whose threads each call `body`.
cudaError_t launch(cudaLaunchConfig_t const& config, void const* kernel, std::function<void()> body);

/// What a lane brings to its warp.
struct Bits {
  uint64_t words[4];
};
enum class Meeting { sync, exchange };
/// Waits for the other lanes of the warp; what each brought, until the lane's next call but one. Lanes that have exited
/// count as arrived, and bring all bits 1.
Bits const* meet(Meeting what, unsigned mask, Bits const& mine);
unsigned lane_id();  // within the warp
void* dynamic_shared();

template <class T>
class Lanes {
 public:
  explicit Lanes(Bits const* at) : at_(at) {}
  T operator[](unsigned lane) const {
    T value;
    std::memcpy(&value, &at_[lane], sizeof value);
    return value;
  }

 private:
  Bits const* at_;
};

}  // namespace cuda_on_host

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(Params...), Args&&... args) {
  return [&](Params... converted) {
    return cuda_on_host::launch(
        *config, reinterpret_cast<void const*>(kernel),
        [kernel, bound = std::tuple<std::remove_cv_t<Params>...>(converted...)] { std::apply(kernel, bound); });
  }(std::forward<Args>(args)...);
}

// ---- The language of kernels

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Blocks that run at one time must not share it. AddressSanitizer guards the ends of plain static arrays only, so under
// it one block of the process runs at a time; otherwise each thread that runs blocks has its own.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
/// The block's shared memory whose size the launch says.
inline void* cuda_on_host_dynamic_shared() { return cuda_on_host::dynamic_shared(); }

extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread uint3 blockDim;
extern __thread uint3 gridDim;

void __syncthreads();
void cudaGridDependencySynchronize();
inline void cudaTriggerProgrammaticLaunchCompletion() {}
inline void __syncwarp(unsigned mask = 0xffffffffU) {
  cuda_on_host::meet(cuda_on_host::Meeting::sync, mask, cuda_on_host::Bits());
}

/// What every lane of the warp brings. In place of instructions that have no name in CUDA C++.
template <class T>
cuda_on_host::Lanes<T> cuda_on_host_exchange(T const& mine, unsigned mask = 0xffffffffU) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(cuda_on_host::Bits));
  cuda_on_host::Bits bits{};
  std::memcpy(&bits, &mine, sizeof mine);
  return cuda_on_host::Lanes<T>(cuda_on_host::meet(cuda_on_host::Meeting::exchange, mask, bits));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return cuda_on_host_exchange(value, mask)[static_cast<unsigned>(source) % 32];
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return cuda_on_host_exchange(value, mask)[(cuda_on_host::lane_id() ^ static_cast<unsigned>(bits)) % 32];
}
inline int __any_sync(unsigned mask, int predicate) {
  auto const votes = cuda_on_host_exchange(predicate != 0 ? 1 : 0, mask);
  int any = 0;
  for (unsigned lane = 0; lane < 32; ++lane) any |= votes[lane] == 1 ? 1 : 0;
  return any;
}

template <class T>
T __ldg(T const* pointer) {
  return *pointer;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
