#include "sida/cuda/gemm.hpp"

#include <cmath>
#include <random>

#include "cuda/element_rows.hpp"

#include "kernels/cuda/kernels.hpp"
#include "tests/cuda/device_fixture.hpp"
#include "tests/layer/random_experts.hpp"

namespace sida {
namespace {

using test::must;

struct Operands {
  std::vector<std::byte> bytes;  // rows at `stride`
  std::vector<double> values;    // [rows, cols], as they read back
};

Operands random_operand(Dtype dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride, std::mt19937& random) {
  Operands operand;
  std::size_t const size = size_bytes(dtype);
  operand.bytes.assign(static_cast<std::size_t>(rows * stride) * size, std::byte{0xFF});
  std::normal_distribution<float> normal(0, 1);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      float const value = normal(random);
      std::byte* const at = operand.bytes.data() + static_cast<std::size_t>(r * stride + c) * size;
      if (dtype == Dtype::f32) {
        std::memcpy(at, &value, size);
        operand.values.push_back(static_cast<double>(value));
      } else if (dtype == Dtype::bf16) {
        bf16 const half = to_bf16(value);
        std::memcpy(at, &half, size);
        operand.values.push_back(static_cast<double>(to_float(half)));
      } else {
        fp16 const half = to_fp16(value);
        std::memcpy(at, &half, size);
        operand.values.push_back(static_cast<double>(to_float(half)));
      }
    }
  }
  return operand;
}

class CudaGemm : public test::DeviceTest {
 protected:
  static void compare(Dtype dtype, std::int64_t m, std::int64_t n, std::int64_t k, bool adds) {
    SCOPED_TRACE(std::string(to_string(dtype)) + " " + std::to_string(m) + "x" + std::to_string(n) + "x" +
                 std::to_string(k));
    std::mt19937 random(static_cast<unsigned>(m * 131 + n * 17 + k));
    std::int64_t const stride = cuda::row_stride(dtype, k);
    Operands const x = random_operand(dtype, m, k, stride, random);
    Operands const w = random_operand(dtype, n, k, k, random);
    test::DeviceBytes x_there(x.bytes.size()), w_there(w.bytes.size());
    cuda::DeviceMemory memory;
    Buffer workspace = test::take(Buffer::allocate(memory, cuda::Gemm::kWorkspaceBytes, 256));
    must(cudaMemcpy(x_there.bytes().data(), x.bytes.data(), x.bytes.size(), cudaMemcpyHostToDevice));
    must(cudaMemcpy(w_there.bytes().data(), w.bytes.data(), w.bytes.size(), cudaMemcpyHostToDevice));
    std::vector<float> const before = test::random_floats(m * n, random);
    test::DeviceFloats y(before, n);
    auto const stream = test::take(cuda::Stream::create());
    auto const blas = test::take(cuda::BlasHandle::create());
    cuda::Gemm gemm(blas.get(), workspace.bytes());
    must(gemm.run(stream.get(), {.x = x_there.bytes().data(),
                                 .x_stride = stride,
                                 .w = w_there.bytes().data(),
                                 .y = y.data(),
                                 .y_stride = n,
                                 .m = m,
                                 .n = n,
                                 .k = k,
                                 .dtype = dtype,
                                 .adds = adds}));
    auto const got = y.values();
    double error = 0, norm = 0;
    for (std::int64_t i = 0; i < m * n; ++i) {
      double sum = adds ? static_cast<double>(before[static_cast<std::size_t>(i)]) : 0;
      for (std::int64_t c = 0; c < k; ++c) {
        sum += x.values[static_cast<std::size_t>(i / n * k + c)] * w.values[static_cast<std::size_t>(i % n * k + c)];
      }
      double const difference = static_cast<double>(got[static_cast<std::size_t>(i)]) - sum;
      error += difference * difference;
      norm += sum * sum;
    }
    EXPECT_LE(std::sqrt(error / norm), 2e-6);  // operands are exact; sums are float32
  }
};

TEST_F(CudaGemm, AllTypesAndShapes) {
  for (Dtype const dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    for (auto const& [m, n, k] : {std::array<std::int64_t, 3>{1, 64, 64},
                                  {9, 96, 128},
                                  {33, 40, 72},
                                  {7, 2, 64},
                                  {5, 33, 37},
                                  {300, 16, 768},
                                  {17, 100, 8},
                                  {64, 7, 200}}) {
      for (bool const adds : {false, true}) compare(dtype, m, n, k, adds);
    }
  }
}

}  // namespace
}  // namespace sida
