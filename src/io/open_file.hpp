#pragma once

#include <memory>
#include <string>

#include "sida/core/result.hpp"
#include "sida/io/file.hpp"

namespace sida::inline v0::io_detail {

class StagingPool;

/// As `File::open`, with a staging pool that several files of one source share.
Result<std::unique_ptr<File>> open_file(std::string path, ReadPath read_path, std::shared_ptr<StagingPool> staging);

Result<std::unique_ptr<File>> open_pread_file(std::string path, std::shared_ptr<StagingPool> staging);
Result<std::unique_ptr<File>> open_mmap_file(std::string path);

/// The sum of two files' counts, where both use one staging pool.
inline ReadStats add_stats(ReadStats const& a, ReadStats const& b) noexcept {
  return {a.bytes_read + b.bytes_read, a.overread_bytes + b.overread_bytes, a.reads + b.reads,
          a.staging_bytes > b.staging_bytes ? a.staging_bytes : b.staging_bytes};
}

}  // namespace sida::inline v0::io_detail
