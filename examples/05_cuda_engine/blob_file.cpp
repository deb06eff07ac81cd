#include "blob_file.hpp"

#include <cstdlib>
#include <random>
#include <unistd.h>
#include <vector>

#include "device.hpp"

namespace engine {

BlobFile::BlobFile(Config const& config) : config_(config) {
  char const* const folder = std::getenv("TMPDIR");
  path_ = std::string(folder != nullptr ? folder : "/tmp") + "/cuda_engine.XXXXXX";
  descriptor_ = ::mkstemp(path_.data());
  if (descriptor_ < 0) fail("cannot make a temporary file");
  std::mt19937 random(7);
  std::uniform_real_distribution<float> weight(-0.1F, 0.1F);
  std::vector<std::uint16_t> matrix(config.matrix_bytes() / 2);
  for (std::uint32_t i = 0; i < config.experts * 3; ++i) {
    for (auto& value : matrix) {
      float const number = weight(random);
      std::uint32_t bits;
      static_assert(sizeof bits == sizeof number);
      __builtin_memcpy(&bits, &number, sizeof bits);
      value = static_cast<std::uint16_t>(bits >> 16);
    }
    auto const size = static_cast<ssize_t>(config.matrix_bytes());
    if (::write(descriptor_, matrix.data(), config.matrix_bytes()) != size) fail("cannot write a temporary file");
  }
}

BlobFile::~BlobFile() {
  ::close(descriptor_);
  ::unlink(path_.c_str());
}

bool BlobFile::read(std::uint32_t expert, Matrix matrix, std::byte* to) const {
  std::size_t const bytes = config_.matrix_bytes();
  std::size_t const at = (std::size_t{expert} * 3 + static_cast<std::size_t>(matrix)) * bytes;
  return ::pread(descriptor_, to, bytes, static_cast<off_t>(at)) == static_cast<ssize_t>(bytes);
}

}  // namespace engine
