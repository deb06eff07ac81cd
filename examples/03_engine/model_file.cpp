#include "model_file.hpp"

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <stdexcept>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "decoder.hpp"

namespace engine {
namespace {

std::size_t floats_of(Config const& config) { return DenseWeights::carve(config, nullptr).floats; }

std::uint64_t experts_offset(Config const& config) { return (floats_of(config) * sizeof(float) + 4095) / 4096 * 4096; }

std::size_t bytes_of_expert(Config const& config) {
  return 3 * sizeof(std::uint16_t) * static_cast<std::size_t>(config.d_model * config.d_ff);
}

/// Uniform in [-scale, scale).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  float next(float scale) {
    state_ += 0x9E3779B97F4A7C15U;  // splitmix64
    std::uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return scale * (static_cast<float>((x ^ (x >> 31)) >> 40) * 0x1p-23F - 1.0F);
  }

 private:
  std::uint64_t state_;
};

}  // namespace

void fail(std::string const& why) { throw std::runtime_error(why); }

void ModelFile::write_random(std::string const& path, Config const& config, std::uint64_t seed) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (!file) fail(path + ": " + std::strerror(errno));
  Random random(seed);
  float const scale = std::sqrt(3.0F / static_cast<float>(config.d_model));  // outputs of about the inputs' size
  std::vector<float> dense(experts_offset(config) / sizeof(float));
  for (float& value : dense) value = random.next(scale);
  DenseWeights::carve(config, dense.data()).fill_norms(config, dense.data());
  bool ok = std::fwrite(dense.data(), sizeof(float), dense.size(), file.get()) == dense.size();
  std::vector<std::uint16_t> expert(bytes_of_expert(config) / sizeof(std::uint16_t));
  for (std::uint32_t i = 0; ok && i < config.layers() * config.experts(); ++i) {
    for (std::uint16_t& value : expert) {
      value = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(random.next(scale)) >> 16);
    }
    ok = std::fwrite(expert.data(), sizeof(std::uint16_t), expert.size(), file.get()) == expert.size();
  }
  ok = std::fclose(file.release()) == 0 && ok;
  if (!ok) fail(path + ": could not be written");
}

ModelFile::ModelFile(std::string path, Config const& config)
    : path_(std::move(path)), config_(config), descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail(path_ + ": " + std::strerror(errno));
  std::uint64_t const expected =
      experts_offset(config) + std::uint64_t{config.layers()} * config.experts() * bytes_of_expert(config);
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0 || static_cast<std::uint64_t>(info.st_size) != expected) {
    ::close(descriptor_);
    fail(path_ + ": not of the size that the configuration asks for");
  }
}

ModelFile::~ModelFile() { ::close(descriptor_); }

std::size_t ModelFile::dense_floats() const noexcept { return floats_of(config_); }
std::size_t ModelFile::expert_bytes() const noexcept { return bytes_of_expert(config_); }

void ModelFile::read_dense(float* dst) const {
  if (!read_at(0, dst, dense_floats() * sizeof(float))) fail(path_ + ": short read of the dense weights");
}

bool ModelFile::read_expert(std::uint32_t layer, std::uint32_t expert, void* dst) const noexcept {
  std::uint64_t const number = std::uint64_t{layer} * config_.experts() + expert;
  return read_at(experts_offset(config_) + number * expert_bytes(), dst, expert_bytes());
}

bool ModelFile::read_at(std::uint64_t offset, void* dst, std::size_t bytes) const noexcept {
  for (std::size_t done = 0; done < bytes;) {
    ssize_t const count =
        ::pread(descriptor_, static_cast<char*>(dst) + done, bytes - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace engine
