#include "sida/core/memory.hpp"

#include <cstdint>
#include <new>
#include <string>
#include <sys/mman.h>

#include "sida/detail/try.hpp"

namespace sida::inline v0 {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

bool is_large(std::size_t bytes) { return bytes >= kHugePage; }

/// An anonymous mapping that starts at a multiple of 2 MiB: maps more, gives back both ends.
void* map_aligned(std::size_t bytes) {
  std::size_t const mapped = bytes + kHugePage;
  void* const raw = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto const begin = reinterpret_cast<std::uintptr_t>(raw);
  std::uintptr_t const aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) ::munmap(raw, aligned - begin);
  if (begin + mapped > aligned + bytes) {
    ::munmap(reinterpret_cast<void*>(aligned + bytes), begin + mapped - (aligned + bytes));
  }
  void* const data = reinterpret_cast<void*>(aligned);
  ::madvise(data, bytes, MADV_HUGEPAGE);  // a wish; refusal costs speed only
  return data;
}

std::size_t round_to_pages(std::size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

}  // namespace

Result<void*> HostMemory::allocate(std::size_t bytes, std::size_t alignment) {
  std::size_t const limit = std::size_t{1} << 47;
  bool const valid = alignment != 0 && (alignment & (alignment - 1)) == 0 && alignment <= kHugePage;
  if (!valid) return Error(Errc::invalid_argument, "alignment " + std::to_string(alignment));
  void* data = nullptr;
  if (bytes < limit) {
    data = is_large(bytes) ? map_aligned(round_to_pages(bytes))
                           : ::operator new(bytes, std::align_val_t(alignment), std::nothrow);
  }
  if (data == nullptr)
    return Error(Errc::out_of_memory, "out of host memory: " + std::to_string(bytes) + " bytes asked for");
  return data;
}

void HostMemory::deallocate(void* data, std::size_t bytes, std::size_t alignment) noexcept {
  if (is_large(bytes)) {
    ::munmap(data, round_to_pages(bytes));
  } else {
    ::operator delete(data, std::align_val_t(alignment));
  }
}

Result<Buffer> Buffer::allocate(MemoryResource& memory, std::size_t bytes, std::size_t alignment,
                                std::string_view purpose) {
  auto data = memory.allocate(bytes, alignment);
  if (!data) return purpose.empty() ? std::move(data).error() : std::move(data).error().with_context(purpose);
  Buffer buffer;
  buffer.memory_ = &memory;
  buffer.data_ = *data;
  buffer.size_bytes_ = bytes;
  buffer.alignment_ = alignment;
  return buffer;
}

Status Buffer::reserve(MemoryResource& memory, std::size_t bytes, std::size_t alignment, std::string_view purpose) {
  if (size_bytes_ >= bytes) return {};
  *this = Buffer();  // first, so that old and new are never there together
  SIDA_TRY_ASSIGN(*this, allocate(memory, bytes, alignment, purpose));
  return {};
}

Buffer::~Buffer() {
  if (memory_ != nullptr) memory_->deallocate(data_, size_bytes_, alignment_);
}

}  // namespace sida::inline v0
