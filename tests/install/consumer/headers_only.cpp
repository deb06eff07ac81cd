// What stands in the headers alone needs no library.
#include <sida/core/dtype.hpp>
#include <sida/core/workspace.hpp>

int main() {
  sida::Workspace sizes;
  sizes.take<float>(17);
  bool const ok = sizes.used_bytes() == 128 && sida::to_float(sida::to_bf16(1.5F)) == 1.5F;
  return ok ? 0 : 1;
}
