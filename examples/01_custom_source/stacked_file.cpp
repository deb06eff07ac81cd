#include "stacked_file.hpp"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <random>
#include <sys/stat.h>
#include <unistd.h>

sida::Status write_stacked_file(std::string const& path, StackedHeader const& header, std::uint32_t seed) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  if (!file) return {sida::Errc::io, path + ": " + std::strerror(errno)};
  bool ok = std::fwrite(&header, sizeof header, 1, file.get()) == 1;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 1.0F / std::sqrt(static_cast<float>(header.d_model)));
  std::vector<sida::bf16> matrix(std::size_t{header.d_model} * header.d_ff);
  for (std::uint32_t i = 0; ok && i < 3 * header.layers * header.experts; ++i) {
    for (sida::bf16& value : matrix) value = sida::to_bf16(normal(random));
    ok = std::fwrite(matrix.data(), sizeof(sida::bf16), matrix.size(), file.get()) == matrix.size();
  }
  ok = std::fclose(file.release()) == 0 && ok;  // the last bytes are written here
  return ok ? sida::Status() : sida::Status(sida::Errc::io, path + ": could not be written");
}

sida::Result<std::shared_ptr<StackedSource const>> StackedSource::open(std::string path) {
  int const descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return sida::Error(errno == ENOENT ? sida::Errc::not_found : sida::Errc::io, path + ": " + std::strerror(errno));
  }
  std::shared_ptr<StackedSource> source(new StackedSource(std::move(path), descriptor));
  if (auto status = source->read_header(); !status) return status;
  return std::shared_ptr<StackedSource const>(std::move(source));
}

StackedSource::~StackedSource() { ::close(descriptor_); }

// What a file says of itself is checked before anything trusts it.
sida::Status StackedSource::read_header() {
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0) return {sida::Errc::io, path_ + ": " + std::strerror(errno)};
  auto const size = static_cast<std::uint64_t>(info.st_size);
  if (size < sizeof header_) return {sida::Errc::corrupt, path_ + ": too short for a header"};
  if (auto status = read_at(0, reinterpret_cast<std::byte*>(&header_), sizeof header_); !status) return status;
  if (header_.magic != StackedHeader().magic) return {sida::Errc::corrupt, path_ + ": not a stacked expert file"};
  if (header_.layers < 1 || header_.layers > 4096 || header_.experts < 1 || header_.experts > 65535) {
    return {sida::Errc::corrupt, path_ + ": layers or experts out of range"};
  }
  auto layout = sida::ExpertLayout::of({sida::FfnKind::swiglu, sida::Dtype::bf16, header_.d_model, header_.d_ff});
  if (!layout) return {sida::Errc::corrupt, path_ + ": " + layout.message()};
  layout_ = *layout;
  std::uint64_t const matrices = std::uint64_t{3} * header_.layers * header_.experts;
  // Division, since the product may not fit 64 bits.
  if ((size - sizeof header_) / layout_.matrix_bytes() < matrices) {
    return {sida::Errc::corrupt, path_ + ": truncated: " + std::to_string(size) + " bytes do not hold " +
                                     std::to_string(matrices) + " matrices of " +
                                     std::to_string(layout_.matrix_bytes()) + " bytes"};
  }
  experts_.assign(header_.layers, header_.experts);
  return {};
}

sida::Status StackedSource::read(sida::ExpertId id, std::span<std::byte> dst) const {
  std::uint64_t const bytes = layout_.matrix_bytes();
  std::size_t const places[] = {layout_.gate, layout_.in, layout_.out};  // in the file's order: gate, up, down
  for (std::uint64_t stack = 0; stack < 3; ++stack) {
    std::uint64_t const matrix = (3 * std::uint64_t{id.layer} + stack) * header_.experts + id.expert;
    auto status = read_at(sizeof header_ + matrix * bytes, dst.data() + places[stack], bytes);
    if (!status) return std::move(status).error().with_context(to_string(id));
  }
  return {};
}

// pread: called from several threads at once, so there is no common file position.
sida::Status StackedSource::read_at(std::uint64_t offset, std::byte* dst, std::size_t bytes) const {
  for (std::size_t done = 0; done < bytes;) {
    ssize_t const count = ::pread(descriptor_, dst + done, bytes - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return {sida::Errc::io, path_ + ": offset " + std::to_string(offset + done) + ": " +
                                  (count < 0 ? std::strerror(errno) : "unexpected end of file")};
    }
    done += static_cast<std::size_t>(count);
  }
  return {};
}
