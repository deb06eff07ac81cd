#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <span>

#include "sida/core/dtype.hpp"

namespace sida::bench {

/// Random bits: never time on zeros.
void fill_random(std::span<std::byte> bytes, cudaStream_t stream);
/// Random numbers of `dtype` about 0, in [-1, 1).
void fill_random_numbers(std::span<std::byte> bytes, Dtype dtype, cudaStream_t stream);
/// Reads every byte, 16 at a time, and writes next to nothing.
cudaError_t read_all(std::span<std::byte const> bytes, unsigned* out, cudaStream_t stream);
/// A launch that does nothing to speak of.
cudaError_t touch(unsigned* word, cudaStream_t stream);

}  // namespace sida::bench
