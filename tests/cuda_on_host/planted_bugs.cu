// Mistakes that the stand-in and the sanitizers must find, and the same code without them: planted_bugs NAME [mended].
// Says "wrong values" where the mistake shows in what the device computed.

#include <chrono>
#include <cstdio>
#include <cstring>
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <string>
#include <thread>
#include <vector>

#include "cuda_on_host/control.hpp"
#include "pinned.hpp"

namespace {

constexpr int kThreads = 64;
constexpr int kWrongValues = 1234;
bool mended = false, held = false;

cudaLaunchConfig_t config(cudaStream_t stream, unsigned blocks = 1) {
  cudaLaunchConfig_t it{};
  it.gridDim = blocks;
  it.blockDim = kThreads;
  it.stream = stream;
  return it;
}

__global__ void reverse(float const* in, float* out, bool synchronised) {
  __shared__ float tile[kThreads];
  unsigned const i = threadIdx.x;
  tile[i] = in[i];
  if (synchronised) __syncthreads();
  out[i] = tile[blockDim.x - 1 - i];
}
__global__ void reverse_in_warp(float const* in, float* out, bool synchronised) {
  __shared__ float tile[kThreads];
  unsigned const i = threadIdx.x;
  tile[i] = in[i];
  if (synchronised) {
    __syncwarp();
  } else {
    __shfl_sync(0xffffffffU, 0, 0);  // orders no memory
  }
  out[i] = tile[i ^ 31];
}
/// Each block writes `per_block` floats, of which only kThreads are its own.
__global__ void overlap(float* out, unsigned per_block) {
  for (unsigned i = threadIdx.x; i < per_block; i += blockDim.x) out[blockIdx.x * blockDim.x + i] = 1;
}
__global__ void copy(float const* in, float* out, int offset) {
  out[threadIdx.x] = in[static_cast<int>(threadIdx.x) + offset];
}
__global__ void shared_index(float* out, int offset) {
  __shared__ float tile[kThreads];
  float* volatile at = tile;  // so that only AddressSanitizer knows the bound
  at[static_cast<int>(threadIdx.x) + offset] = 1;
  out[threadIdx.x] = at[threadIdx.x];
}

__global__ void dynamic_index(float* out, int offset) {
  auto* const tile = static_cast<float*>(cuda_on_host_dynamic_shared());
  tile[static_cast<int>(threadIdx.x) + offset] = 1;
  out[threadIdx.x] = tile[threadIdx.x];
}
/// Doubles, and waits for the kernel before it late or in time. Through shared memory, which it may use before.
__global__ void twice(float const* in, float* out, bool in_time) {
  __shared__ float tile[kThreads];
  auto* const factors = static_cast<float*>(cuda_on_host_dynamic_shared());
  factors[threadIdx.x] = 2;
  cudaTriggerProgrammaticLaunchCompletion();
  if (in_time) cudaGridDependencySynchronize();
  tile[threadIdx.x] = in[threadIdx.x];
  if (!in_time) cudaGridDependencySynchronize();
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x] * factors[threadIdx.x];
}

/// Waits for the kernel before it, so that whoever waits for this one has waited for both; or doesn't.
__global__ void pass_on(float* other, bool waits) {
  if (waits) cudaGridDependencySynchronize();
  other[threadIdx.x] = 1;
}

struct Fixture {
  Fixture() {
    for (auto** pointer : {&host_in, &host_out}) *pointer = static_cast<float*>(allocate_pinned(bytes));
    for (auto** pointer : {&in, &out}) cudaMalloc(pointer, bytes);
    for (auto* stream : {&a, &b, &c}) cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    for (int i = 0; i < kThreads; ++i) host_in[i] = static_cast<float>(i);
    std::memset(host_out, 0, bytes);
  }
  ~Fixture() {
    cudaDeviceSynchronize();
    for (auto* pointer : {host_in, host_out}) free_pinned(pointer);
    for (auto* pointer : {in, out}) cudaFree(pointer);
    for (auto* stream : {a, b, c}) cudaStreamDestroy(stream);
    cudaEventDestroy(event);
    cudaFree(other);
  }
  void upload(cudaStream_t stream) { cudaMemcpyAsync(in, host_in, bytes, cudaMemcpyHostToDevice, stream); }
  int expect_copied() {
    cudaDeviceSynchronize();
    cudaMemcpy(host_out, out, bytes, cudaMemcpyDeviceToHost);
    return compare();
  }
  int compare() const { return std::memcmp(host_in, host_out, bytes) == 0 ? 0 : kWrongValues; }

  std::size_t bytes = kThreads * sizeof(float);
  float *host_in = nullptr, *host_out = nullptr, *in = nullptr, *out = nullptr;
  cudaStream_t a = nullptr, b = nullptr, c = nullptr;
  cudaEvent_t event = nullptr;
  void* other = nullptr;
};

int barrier(Fixture& f) {
  f.upload(f.a);
  auto const at = config(f.a);
  cudaLaunchKernelEx(&at, reverse, f.in, f.out, mended);
  return cudaStreamSynchronize(f.a);
}
int warp(Fixture& f) {
  f.upload(f.a);
  auto const at = config(f.a);
  cudaLaunchKernelEx(&at, reverse_in_warp, f.in, f.out, mended);
  return cudaStreamSynchronize(f.a);
}
int blocks(Fixture&) {
  float* big = nullptr;
  cudaMalloc(&big, 5 * kThreads * sizeof(float));
  auto const at = config(nullptr, 4);
  cudaLaunchKernelEx(&at, overlap, big, mended ? kThreads : kThreads + 1);
  cudaDeviceSynchronize();
  return cudaFree(big);
}
/// Time and calls that order nothing: what was queued has ended, but nobody may know.
void pass_time(Fixture& f) {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  char* other = nullptr;
  cudaMalloc(&other, 2);
  cudaMemsetAsync(other, 0, 1, f.a);
  cudaMemsetAsync(other + 1, 0, 1, f.b);
  cudaStreamSynchronize(f.c);
  if (held) {
    f.other = other;  // cudaFree would let the held copies run
  } else {
    cudaFree(other);
  }
}

int stream_wait(Fixture& f) {
  f.upload(f.a);
  cudaEventRecord(f.event, f.a);
  pass_time(f);
  if (mended) cudaStreamWaitEvent(f.b, f.event, 0);
  auto const at = config(f.b);
  cudaLaunchKernelEx(&at, copy, f.in, f.out, 0);
  cudaStreamSynchronize(f.b);
  cudaMemcpyAsync(f.host_out, f.out, f.bytes, cudaMemcpyDeviceToHost, f.b);
  cudaStreamSynchronize(f.b);
  return f.compare();
}
/// As above, after rounds that were right, and from another thread of the host.
int last_wait(Fixture& f) {
  for (int round = 0; round < 10; ++round) {
    f.upload(f.a);
    std::thread([&] {
      cudaEventRecord(f.event, f.a);
      if (mended || round < 9) cudaStreamWaitEvent(f.b, f.event, 0);
      auto const at = config(f.b);
      cudaLaunchKernelEx(&at, copy, f.in, f.out, 0);
      cudaEventRecord(f.event, f.b);
    }).join();
    cudaStreamWaitEvent(f.a, f.event, 0);
  }
  return f.expect_copied();
}
int gemm_input(Fixture& f) {
  f.upload(f.a);
  pass_time(f);
  if (mended) cudaStreamSynchronize(f.a);
  cublasHandle_t handle = nullptr;
  cublasCreate(&handle);
  cublasLtMatmulDescOpaque_t desc;
  cublasLtMatrixLayoutOpaque_t square;
  cublasLtMatmulDescInit(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  cublasOperation_t const transpose = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(&desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
  cublasLtMatmulPreferenceOpaque_t preference;
  cublasLtMatmulPreferenceInit(&preference);
  cublasLtMatmulHeuristicResult_t found;
  int count = 0;
  cublasLtMatrixLayoutInit(&square, CUDA_R_32F, 8, 8, 8);
  float const one = 1, zero = 0;
  auto const lt = reinterpret_cast<cublasLtHandle_t>(handle);
  cublasLtMatmulAlgoGetHeuristic(lt, &desc, &square, &square, &square, &square, &preference, 1, &found, &count);
  cublasLtMatmul(lt, &desc, &one, f.in, &square, f.in, &square, &zero, f.out, &square, f.out, &square, &found.algo,
                 nullptr, 0, f.b);
  cublasDestroy(handle);
  return cudaStreamSynchronize(f.b);
}
int host_read(Fixture& f) {
  f.upload(f.a);
  auto const at = config(f.a);
  cudaLaunchKernelEx(&at, copy, f.in, f.out, 0);
  cudaMemcpyAsync(f.host_out, f.out, f.bytes, cudaMemcpyDeviceToHost, f.a);
  pass_time(f);
  if (mended) cudaStreamSynchronize(f.a);
  return f.compare();
}
int refill(Fixture& f) {
  f.upload(f.a);
  cudaStreamSynchronize(f.a);
  auto const at = config(f.b);
  cudaLaunchKernelEx(&at, copy, f.in, f.out, 0);
  cudaEventRecord(f.event, f.b);
  pass_time(f);
  if (mended) cudaStreamWaitEvent(f.a, f.event, 0);
  f.upload(f.a);
  return f.expect_copied();
}
int freed_source(Fixture& f) {
  float* source = nullptr;
  source = static_cast<float*>(allocate_pinned(f.bytes));
  cudaMemcpyAsync(f.in, source, f.bytes, cudaMemcpyHostToDevice, f.a);
  if (mended) cudaStreamSynchronize(f.a);
  free_pinned(source);
  return cudaStreamSynchronize(f.a);
}
int reused_source(Fixture& f) {
  f.upload(f.a);
  if (mended) cudaStreamSynchronize(f.a);
  f.host_in[0] = 7;
  return cudaStreamSynchronize(f.a);
}
int device_overrun(Fixture& f) {
  f.upload(f.a);
  auto const at = config(f.a);
  cudaLaunchKernelEx(&at, copy, f.in, f.out, mended ? 0 : 1);
  return cudaStreamSynchronize(f.a);
}
int shared_overrun(Fixture& f) {
  auto const at = config(f.a);
  cudaLaunchKernelEx(&at, shared_index, f.out, mended ? 0 : 1);
  return cudaStreamSynchronize(f.a);
}

int dynamic_overrun(Fixture& f) {
  auto at = config(f.a);
  at.dynamicSmemBytes = kThreads * sizeof(float);
  cudaLaunchKernelEx(&at, dynamic_index, f.out, mended ? 0 : 1);
  return cudaStreamSynchronize(f.a);
}
cudaLaunchConfig_t early_config(cudaStream_t stream) {
  static cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  auto at = config(stream);
  at.dynamicSmemBytes = kThreads * sizeof(float);
  at.attrs = &attribute;
  at.numAttrs = 1;
  return at;
}
/// A row of kernels that may overlap. The last one reads what the one before it wrote.
int early_read(Fixture& f) {
  f.upload(f.a);
  auto at = early_config(f.a);
  for (int i = 0; i < 4; ++i) {
    at.numAttrs = i == 0 ? 0 : 1;
    cudaLaunchKernelEx(&at, twice, i % 2 == 0 ? f.in : f.out, i % 2 == 0 ? f.out : f.in, mended || i < 3);
  }
  cudaMemcpyAsync(f.host_out, f.in, f.bytes, cudaMemcpyDeviceToHost, f.a);
  cudaStreamSynchronize(f.a);
  for (int i = 0; i < kThreads; ++i) f.host_in[i] *= 16;
  return f.compare();
}

/// The third of a row waits for the second only, and reads what the first wrote.
int early_passed_on(Fixture& f) {
  f.upload(f.a);
  float* other = nullptr;
  cudaMalloc(&other, f.bytes);
  f.other = other;
  auto at = early_config(f.a);
  cudaLaunchKernelEx(&at, twice, f.in, f.out, true);
  cudaLaunchKernelEx(&at, pass_on, other, mended);
  cudaLaunchKernelEx(&at, twice, f.out, f.in, true);
  return cudaStreamSynchronize(f.a);
}

struct Bug {
  char const* name;
  int (*run)(Fixture&);
};
constexpr Bug kBugs[] = {{"barrier", barrier},
                         {"warp", warp},
                         {"blocks", blocks},
                         {"stream_wait", stream_wait},
                         {"last_wait", last_wait},
                         {"gemm_input", gemm_input},
                         {"freed_source", freed_source},
                         {"host_read", host_read},
                         {"refill", refill},
                         {"reused_source", reused_source},
                         {"device_overrun", device_overrun},
                         {"shared_overrun", shared_overrun},
                         {"dynamic_overrun", dynamic_overrun},
                         {"early_read", early_read},
                         {"early_passed_on", early_passed_on}};

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> const words(arguments + 1, arguments + count);
  cuda_on_host::Modes modes;
  for (std::string const& word : words) {
    if (word == "mended") mended = true;
    if (word == "hold") modes.hold_copies = held = true;
    if (word == "poison") modes.poison_destinations = true;
  }
  cuda_on_host::set(modes);
  for (Bug const& bug : kBugs) {
    if (words.empty() || words[0] != bug.name) continue;
    Fixture fixture;
    int const result = bug.run(fixture);
    if (result == kWrongValues) std::fputs("wrong values\n", stderr);
    return result == 0 ? 0 : 1;
  }
  std::fputs("usage: planted_bugs NAME [mended] [hold] [poison]\n", stderr);
  return 2;
}
