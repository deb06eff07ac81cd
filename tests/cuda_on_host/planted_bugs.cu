// Mistakes that the stand-in and the sanitizers must find, and the same code without them: planted_bugs NAME [mended].
// Exits with 3 when the mistake showed in what the device computed.

#include <cstdio>
#include <cstring>
#include <cuda_runtime.h>
#include <string>
#include <vector>

#include "cuda_on_host/control.hpp"

namespace {

constexpr int kThreads = 64;
bool mended = false;

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

struct Fixture {
  Fixture() {
    for (auto** pointer : {&host_in, &host_out}) cudaMallocHost(pointer, bytes);
    for (auto** pointer : {&in, &out}) cudaMalloc(pointer, bytes);
    for (auto* stream : {&a, &b}) cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    for (int i = 0; i < kThreads; ++i) host_in[i] = static_cast<float>(i);
    std::memset(host_out, 0, bytes);
  }
  ~Fixture() {
    cudaDeviceSynchronize();
    for (auto* pointer : {host_in, host_out}) cudaFreeHost(pointer);
    for (auto* pointer : {in, out}) cudaFree(pointer);
    for (auto* stream : {a, b}) cudaStreamDestroy(stream);
    cudaEventDestroy(event);
  }
  void upload(cudaStream_t stream) { cudaMemcpyAsync(in, host_in, bytes, cudaMemcpyHostToDevice, stream); }
  int expect_copied() {
    cudaDeviceSynchronize();
    cudaMemcpy(host_out, out, bytes, cudaMemcpyDeviceToHost);
    return compare();
  }
  int compare() const { return std::memcmp(host_in, host_out, bytes) == 0 ? 0 : 3; }

  std::size_t bytes = kThreads * sizeof(float);
  float *host_in = nullptr, *host_out = nullptr, *in = nullptr, *out = nullptr;
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t event = nullptr;
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
int stream_wait(Fixture& f) {
  f.upload(f.a);
  cudaEventRecord(f.event, f.a);
  if (mended) cudaStreamWaitEvent(f.b, f.event);
  auto const at = config(f.b);
  cudaLaunchKernelEx(&at, copy, f.in, f.out, 0);
  cudaStreamSynchronize(f.b);
  cudaMemcpyAsync(f.host_out, f.out, f.bytes, cudaMemcpyDeviceToHost, f.b);
  cudaStreamSynchronize(f.b);
  return f.compare();
}
int host_read(Fixture& f) {
  f.upload(f.a);
  auto const at = config(f.a);
  cudaLaunchKernelEx(&at, copy, f.in, f.out, 0);
  cudaMemcpyAsync(f.host_out, f.out, f.bytes, cudaMemcpyDeviceToHost, f.a);
  if (mended) cudaStreamSynchronize(f.a);
  int const result = f.compare();
  cudaStreamQuery(f.b);  // other calls order nothing
  return result;
}
int refill(Fixture& f) {
  f.upload(f.a);
  cudaStreamSynchronize(f.a);
  auto const at = config(f.b);
  cudaLaunchKernelEx(&at, copy, f.in, f.out, 0);
  cudaEventRecord(f.event, f.b);
  if (mended) cudaStreamWaitEvent(f.a, f.event);
  f.upload(f.a);
  return f.expect_copied();
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

struct Bug {
  char const* name;
  int (*run)(Fixture&);
};
constexpr Bug kBugs[] = {{"barrier", barrier},
                         {"warp", warp},
                         {"blocks", blocks},
                         {"stream_wait", stream_wait},
                         {"host_read", host_read},
                         {"refill", refill},
                         {"reused_source", reused_source},
                         {"device_overrun", device_overrun},
                         {"shared_overrun", shared_overrun}};

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> const words(arguments + 1, arguments + count);
  for (std::string const& word : words) {
    if (word == "mended") mended = true;
    if (word == "hold") cuda_on_host::hold_copies();
    if (word == "poison") cuda_on_host::poison_destinations();
  }
  for (Bug const& bug : kBugs) {
    if (words.empty() || words[0] != bug.name) continue;
    Fixture fixture;
    return bug.run(fixture);
  }
  std::fputs("usage: planted_bugs NAME [mended] [hold] [poison]\n", stderr);
  return 2;
}
