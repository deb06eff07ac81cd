#pragma once

#include <cstdint>
#include <string>

#include "io/file_descriptor.hpp"
#include "sida/core/result.hpp"

namespace sida::inline v0::io_detail {

/// What a path leads to, for who is about to write there.
struct OutputTarget {
  enum class Kind : std::uint8_t {
    file,        ///< a regular file, or nothing yet
    folder,      ///< a directory
    special,     ///< a device, FIFO or socket
    descriptor,  ///< a name of an open descriptor, such as /dev/stdout, whatever stands behind it
  };
  Kind kind = Kind::file;
  std::string path;     ///< symbolic links followed, so that a rename replaces the file and not the link
  int descriptor = -1;  ///< of this process, where `kind` is descriptor; -1 for one of another process
};

/// Follows symbolic links, also one to what isn't there yet. @return io: links in a circle; invalid_argument.
Result<OutputTarget> find_output_target(std::string const& path);

/// A new file in the folder of `path`, for a rename to `path` once it is whole.
struct TemporaryFile {
  FileDescriptor descriptor;
  std::string path;
};

/// Its name is of fixed length, since that of `path` may be as long as a name can be. @return io, naming `path`.
Result<TemporaryFile> create_temporary_beside(std::string const& path);

/// Of `path`, with the slash at its end; "./" for a bare name.
std::string folder_of(std::string const& path);

}  // namespace sida::inline v0::io_detail
