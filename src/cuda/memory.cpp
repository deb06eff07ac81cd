#include "sida/cuda/memory.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "sida/cuda/error.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::cuda {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kBytesPerToucher = std::size_t{256} << 20;
constexpr std::size_t kMostTouchers = 8;

std::size_t whole_pages(std::size_t bytes) { return (std::max<std::size_t>(bytes, 1) + kPage - 1) / kPage * kPage; }

void touch(std::byte* data, std::size_t bytes) noexcept {
  for (std::size_t at = 0; at < bytes; at += kPage) data[at] = std::byte{0};
}

/// Registering touches the pages on one thread; several are quicker.
void touch_in_parallel(std::byte* data, std::size_t bytes) {
  std::size_t const touchers =
      std::min({bytes / kBytesPerToucher, kMostTouchers, std::size_t{std::thread::hardware_concurrency()}});
  if (touchers < 2) return;
  std::size_t const share = whole_pages(bytes / touchers);
  std::vector<std::jthread> threads;
  try {
    for (std::size_t first = 0; first < bytes; first += share) {
      threads.emplace_back(touch, data + first, std::min(share, bytes - first));
    }
  } catch (std::exception const&) {
    // No thread: registering will touch what is left.
  }
}

}  // namespace

Result<void*> DeviceMemory::allocate(std::size_t bytes, std::size_t alignment) {
  constexpr std::size_t kGranted = 256;  // what cudaMalloc gives starts at a multiple of it
  if (alignment == 0 || alignment > kGranted || (alignment & (alignment - 1)) != 0) {
    return Error(Errc::invalid_argument, "device memory: alignment " + std::to_string(alignment));
  }
  void* data = nullptr;
  Status status = check(cudaMalloc(&data, std::max<std::size_t>(bytes, 1)), "cudaMalloc");
  if (status) return data;
  return std::move(status).error().with_context("device memory: " + std::to_string(bytes) + " bytes");
}

void DeviceMemory::deallocate(void* data, std::size_t, std::size_t) noexcept { static_cast<void>(cudaFree(data)); }

Result<void*> PinnedMemory::allocate(std::size_t bytes, std::size_t alignment) {
  std::size_t const mapped = whole_pages(bytes);
  HostMemory host;
  SIDA_TRY_ASSIGN(void* const data, host.allocate(mapped, std::max(alignment, kPage)));
  touch_in_parallel(static_cast<std::byte*>(data), mapped);
  Status status = check(cudaHostRegister(data, mapped, cudaHostRegisterPortable), "cudaHostRegister");
  if (status) return data;
  host.deallocate(data, mapped, std::max(alignment, kPage));
  return std::move(status).error().with_context("pinned memory: " + std::to_string(bytes) + " bytes");
}

void PinnedMemory::deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept {
  static_cast<void>(cudaHostUnregister(data));
  HostMemory().deallocate(data, whole_pages(bytes), std::max(alignment, kPage));
}

}  // namespace sida::inline v0::cuda
