// What the machine can do, as ceilings for all that is claimed: link, device memory, dense products, launches.
#include <chrono>
#include <cstdint>
#include <vector>

#include "bench/cuda/device_timer.hpp"
#include "bench/cuda/random_bytes.hpp"
#include "bench/json_line.hpp"
#include "sida/cuda/gemm.hpp"
#include "sida/cuda/handles.hpp"
#include "sida/cuda/memory.hpp"

namespace {

using namespace sida;
using bench::device_seconds;
using bench::must;
using bench::take;

constexpr std::size_t kMiB = std::size_t{1} << 20;

void print_device() {
  cudaDeviceProp properties;
  must(cudaGetDeviceProperties(&properties, 0));
  int driver = 0, runtime = 0;
  must(cudaDriverGetVersion(&driver));
  must(cudaRuntimeGetVersion(&runtime));
  bench::JsonLine("device")
      .add("gpu", std::string(properties.name))
      .add("sm", properties.major * 10 + properties.minor)
      .add("multiprocessors", properties.multiProcessorCount)
      .add("l2_bytes", properties.l2CacheSize)
      .add("memory_bytes", static_cast<double>(properties.totalGlobalMem))
      .add("driver", driver)
      .add("runtime", runtime);
}

/// 64 copies of 9.4 MB, one after the other, as a store of switch-base experts makes them.
void measure_link(cudaStream_t stream) {
  constexpr std::size_t kRecord = 9437184;
  constexpr int kCopies = 64;
  cuda::PinnedMemory pinned;
  cuda::DeviceMemory device;
  auto const began = std::chrono::steady_clock::now();
  Buffer host = take(Buffer::allocate(pinned, kRecord * kCopies));
  double const pin_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  Buffer there = take(Buffer::allocate(device, kRecord * kCopies, 256));
  auto const copies = [&](cudaMemcpyKind kind) {
    return device_seconds(stream, 7, [&](int) {
      for (int i = 0; i < kCopies; ++i) {
        std::byte* const h = host.bytes().data() + i * kRecord;
        std::byte* const d = there.bytes().data() + i * kRecord;
        bool const up = kind == cudaMemcpyHostToDevice;
        must(cudaMemcpyAsync(up ? d : h, up ? h : d, kRecord, kind, stream));
      }
    });
  };
  double const bytes = static_cast<double>(kRecord) * kCopies;
  bench::JsonLine("link")
      .add("record_bytes", static_cast<double>(kRecord))
      .add("h2d_bytes_per_s", bytes / copies(cudaMemcpyHostToDevice))
      .add("d2h_bytes_per_s", bytes / copies(cudaMemcpyDeviceToHost))
      .add("pin_s_per_gib", pin_s / (bytes / 1024 / 1024 / 1024));
}

/// Read rate of device memory by a kernel of sida's own that only reads, and a device copy.
void measure_memory(cudaStream_t stream) {
  cuda::DeviceMemory device;
  constexpr std::size_t kBytes = 2048 * kMiB;
  Buffer from = take(Buffer::allocate(device, kBytes, 256));
  Buffer to = take(Buffer::allocate(device, kBytes, 256));
  bench::fill_random(from.bytes(), stream);
  double const copy_s = device_seconds(stream, 9, [&](int) {
    must(cudaMemcpyAsync(to.bytes().data(), from.bytes().data(), kBytes, cudaMemcpyDeviceToDevice, stream));
  });
  double const read_s = device_seconds(stream, 9, [&](int) {
    must(bench::read_all(from.bytes(), reinterpret_cast<unsigned*>(to.bytes().data()), stream));
  });
  bench::JsonLine("memory")
      .add("copy_bytes_per_s", 2.0 * static_cast<double>(kBytes) / copy_s)
      .add("read_bytes_per_s", static_cast<double>(kBytes) / read_s);
}

void measure_gemm(cudaStream_t stream, cublasHandle_t blas) {
  cuda::DeviceMemory device;
  constexpr std::int64_t kSize = 8192;
  Buffer workspace = take(Buffer::allocate(device, cuda::Gemm::kWorkspaceBytes, 256));
  cuda::Gemm gemm(blas, workspace.bytes());
  for (Dtype const dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
    std::int64_t const size = dtype == Dtype::f32 ? kSize / 2 : kSize;
    std::size_t const bytes = static_cast<std::size_t>(size * size) * size_bytes(dtype);
    Buffer x = take(Buffer::allocate(device, bytes, 256));
    Buffer w = take(Buffer::allocate(device, bytes, 256));
    Buffer y = take(Buffer::allocate(device, static_cast<std::size_t>(size * size) * 4, 256));
    bench::fill_random_numbers(x.bytes(), dtype, stream);
    bench::fill_random_numbers(w.bytes(), dtype, stream);
    double const seconds = device_seconds(stream, 5, [&](int) {
      must(gemm.run(stream, {.x = x.bytes().data(),
                             .x_stride = size,
                             .w = w.bytes().data(),
                             .y = reinterpret_cast<float*>(y.bytes().data()),
                             .y_stride = size,
                             .m = size,
                             .n = size,
                             .k = size,
                             .dtype = dtype}));
    });
    bench::JsonLine("gemm")
        .add("dtype", std::string(to_string(dtype)))
        .add("size", static_cast<double>(size))
        .add("flops",
             2.0 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size) / seconds);
  }
}

void measure_latencies(cudaStream_t stream) {
  cuda::DeviceMemory device;
  Buffer word = take(Buffer::allocate(device, 256, 256));
  auto const touch = [&] { must(bench::touch(reinterpret_cast<unsigned*>(word.bytes().data()), stream)); };
  constexpr int kLaunches = 1000;
  double const launches_s = device_seconds(stream, 5, [&](int) {
    for (int i = 0; i < kLaunches; ++i) touch();
  });
  auto const event = take(cuda::Event::create());
  std::vector<double> round_trips;
  for (int i = 0; i < 200; ++i) {
    auto const began = std::chrono::steady_clock::now();
    touch();
    must(event.record(stream));
    must(event.synchronize());
    round_trips.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  bench::JsonLine("latency")
      .add("launch_us", launches_s / kLaunches * 1e6)
      .add("launch_and_wait_us", bench::median(round_trips) * 1e6);
}

}  // namespace

int main() {
  must(cuda::require_device());
  print_device();
  auto const stream = take(cuda::Stream::create());
  auto const blas = take(cuda::BlasHandle::create());
  measure_latencies(stream.get());
  measure_link(stream.get());
  measure_memory(stream.get());
  measure_gemm(stream.get(), blas.get());
}
