#include <cmath>
#include <cstring>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <random>
#include <vector>

#include "cuda_on_host/control.hpp"
#include <gtest/gtest.h>

namespace {

std::size_t size_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }
float load(std::byte const* at, cudaDataType type) {
  float wide;
  unsigned short narrow;
  if (type == CUDA_R_32F) return std::memcpy(&wide, at, 4), wide;
  std::memcpy(&narrow, at, 2);
  return type == CUDA_R_16F ? __half2float(__ushort_as_half(narrow)) : __uint_as_float(unsigned{narrow} << 16);
}
void store(std::byte* at, cudaDataType type, float value) {
  unsigned short const narrow =
      type == CUDA_R_16F ? __half_as_ushort(__float2half_rn(value)) : __bfloat16_as_ushort(__float2bfloat16_rn(value));
  if (type == CUDA_R_32F) {
    std::memcpy(at, &value, 4);
  } else {
    std::memcpy(at, &narrow, 2);
  }
}

/// A column-major matrix on the host and on the device.
struct Matrix {
  Matrix(cudaDataType type_, std::size_t rows_, std::size_t cols_, std::size_t ld_, std::mt19937& random)
      : type(type_), rows(rows_), cols(cols_), ld(ld_), host(ld * cols * size_of(type)) {
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < ld * cols; ++i) store(host.data() + i * size_of(type), type, normal(random));
    EXPECT_EQ(cudaMalloc(&device, host.size()), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(device, host.data(), host.size(), cudaMemcpyHostToDevice), cudaSuccess);
    cublasLtMatrixLayoutInit(&layout, type, rows, cols, static_cast<int64_t>(ld));
  }
  ~Matrix() { EXPECT_EQ(cudaFree(device), cudaSuccess); }
  float at(std::size_t row, std::size_t col) const { return load(&host[(col * ld + row) * size_of(type)], type); }
  void read() { EXPECT_EQ(cudaMemcpy(host.data(), device, host.size(), cudaMemcpyDeviceToHost), cudaSuccess); }

  cudaDataType type;
  std::size_t rows, cols, ld;
  std::vector<std::byte> host;
  void* device = nullptr;
  cublasLtMatrixLayoutOpaque_t layout;
};

class Gemm : public testing::Test {
 protected:
  Gemm() {
    cuda_on_host::reset();
    EXPECT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulDescInit(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    transpose(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  }
  ~Gemm() override {
    EXPECT_EQ(cublasDestroy(handle_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cuda_on_host::live().cublas_handles, 0);
    cuda_on_host::reset();
  }
  cublasLtHandle_t handle() const { return reinterpret_cast<cublasLtHandle_t>(handle_); }
  void transpose(cublasLtMatmulDescAttributes_t which, cublasOperation_t how) {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(&desc_, which, &how, sizeof how), CUBLAS_STATUS_SUCCESS);
  }
  cublasStatus_t find(Matrix& a, Matrix& b, Matrix& c, unsigned alignment, cublasLtMatmulHeuristicResult_t& found) {
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulPreferenceInit(&preference);
    cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, 4);
    int count = 0;
    return cublasLtMatmulAlgoGetHeuristic(handle(), &desc_, &a.layout, &b.layout, &c.layout, &c.layout, &preference, 1,
                                          &found, &count);
  }
  cublasStatus_t multiply(Matrix& a, std::size_t a_offset, Matrix& b, Matrix& c, float alpha, float beta,
                          cublasLtMatmulAlgo_t const* algo) {
    return cublasLtMatmul(handle(), &desc_, &alpha, static_cast<char*>(a.device) + a_offset, &a.layout, b.device,
                          &b.layout, &beta, c.device, &c.layout, c.device, &c.layout, algo, nullptr, 0, nullptr);
  }

  cublasHandle_t handle_ = nullptr;
  cublasLtMatmulDescOpaque_t desc_;
  std::mt19937 random_{1};
};

TEST_F(Gemm, MultipliesLikeANaiveLoop) {
  auto const up_to = [&](std::size_t most) { return 1 + random_() % most; };
  for (cudaDataType const type : {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF}) {
    for (int how = 0; how < 12; ++how) {
      std::size_t const m = up_to(20), n = up_to(20), k = up_to(40);
      float const alpha = how < 4 ? 1.0F : 0.5F, beta = how < 8 ? 0.0F : -2.0F;
      Matrix a(type, k, m, k + random_() % 5, random_);
      Matrix b(type, k, n, k + random_() % 5, random_);
      Matrix c(CUDA_R_32F, m, n, m + random_() % 5, random_);
      Matrix old(CUDA_R_32F, m, n, c.ld, random_);
      old.host = c.host;
      cublasLtMatmulHeuristicResult_t found;
      ASSERT_EQ(find(a, b, c, 256, found), CUBLAS_STATUS_SUCCESS);
      ASSERT_EQ(multiply(a, 0, b, c, alpha, beta, &found.algo), CUBLAS_STATUS_SUCCESS);
      c.read();
      for (std::size_t col = 0; col < n; ++col) {
        for (std::size_t row = 0; row < c.ld; ++row) {
          if (row >= m) {  // between the columns
            ASSERT_EQ(c.at(row, col), old.at(row, col));
            continue;
          }
          double sum = 0, size = 0;
          for (std::size_t i = 0; i < k; ++i) {
            double const term = double{a.at(i, row)} * double{b.at(i, col)};
            sum += term;
            size += std::abs(term);
          }
          double const expected = alpha * sum + beta * old.at(row, col);
          double const bound = std::abs(alpha) * size * static_cast<double>(k + 2) * 0x1p-24 +
                               (std::abs(expected) + std::abs(beta * old.at(row, col))) * 0x1p-23 + 1e-7;
          ASSERT_NEAR(c.at(row, col), expected, bound) << type << " " << how;
        }
      }
    }
  }
}

TEST_F(Gemm, RefusesWhatItCannotDo) {
  Matrix a(CUDA_R_16F, 8, 4, 9, random_), b(CUDA_R_16F, 8, 4, 8, random_), half(CUDA_R_16F, 4, 4, 4, random_);
  Matrix d(CUDA_R_32F, 4, 4, 4, random_);
  cublasLtMatmulHeuristicResult_t found;
  EXPECT_EQ(find(a, b, half, 256, found), CUBLAS_STATUS_NOT_SUPPORTED);  // types
  EXPECT_EQ(find(a, half, d, 256, found), CUBLAS_STATUS_INVALID_VALUE);  // shapes
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T);
  EXPECT_EQ(find(a, b, d, 256, found), CUBLAS_STATUS_NOT_SUPPORTED);
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  ASSERT_EQ(find(a, b, d, 2, found), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(a, 2, b, d, 1, 0, &found.algo), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(find(a, b, d, 16, found), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(a, 2, b, d, 1, 0, &found.algo), CUBLAS_STATUS_INVALID_VALUE);  // not aligned as was promised
  cuda_on_host::fail("cublasLtMatmul", 1, CUBLAS_STATUS_EXECUTION_FAILED);
  EXPECT_EQ(multiply(a, 0, b, d, 1, 0, &found.algo), CUBLAS_STATUS_EXECUTION_FAILED);
  EXPECT_STREQ(cublasGetStatusName(CUBLAS_STATUS_EXECUTION_FAILED), "CUBLAS_STATUS_EXECUTION_FAILED");
}

TEST_F(Gemm, FailsOnHostMemory) {
  Matrix a(CUDA_R_32F, 4, 4, 4, random_);
  cublasLtMatmulHeuristicResult_t found;
  ASSERT_EQ(find(a, a, a, 16, found), CUBLAS_STATUS_SUCCESS);
  float const one = 1, zero = 0;
  alignas(256) static float on_host[16];
  EXPECT_EQ(cublasLtMatmul(handle(), &desc_, &one, on_host, &a.layout, a.device, &a.layout, &zero, a.device, &a.layout,
                           a.device, &a.layout, &found.algo, nullptr, 0, nullptr),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  cuda_on_host::reset();
}

}  // namespace
