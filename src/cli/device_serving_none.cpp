#include "cli/device_serving.hpp"

namespace sida::cli {

Result<std::unique_ptr<DeviceServing>> make_device_serving() {
  return Error(Errc::device, "this program was built without CUDA");
}

}  // namespace sida::cli
