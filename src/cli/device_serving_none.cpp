#include "cli/device_serving.hpp"

namespace sida::cli {

Result<std::unique_ptr<DeviceServing>> make_device_serving() {
  return Error(Errc::device, "--device cuda: this program was built without CUDA; configure it with -DSIDA_CUDA=ON");
}

}  // namespace sida::cli
