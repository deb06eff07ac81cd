// cuBLAS handles, and cuBLASLt's matrix product as plain loops. Unlike the other sources this one is compiled with
// every sanitizer, since it reads and writes the matrices.

#include <algorithm>
#include <cstring>
#include <cublasLt.h>
#include <cuda_fp16.h>
#include <vector>

#include "plumbing.hpp"

struct cublasContext {};

namespace {

// The opaque structs hold each attribute in the place of its number; a preference one place before, since it has eight.
constexpr std::uint64_t kAlgoMagic = 0x73696461;  // in an algorithm's first place; then the alignments of A, B, C, D
constexpr int kAlignments = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES - 1;

/// A matrix as a kernel of cuBLAS sees it.
struct Matrix {
  Matrix(void const* data, cublasLtMatrixLayoutOpaque_t const& layout)
      : at(data),
        type(static_cast<cudaDataType>(layout.data[0])),
        rows(layout.data[1]),
        cols(layout.data[2]),
        ld(layout.data[3]) {}
  bool is_valid() const { return rows > 0 && cols > 0 && ld >= rows; }
  std::vector<float> packed() const {
    std::vector<float> all;
    all.reserve(rows * cols);
    for (std::size_t col = 0; col < cols; ++col) {
      for (std::size_t row = 0; row < rows; ++row) all.push_back(load(col * ld + row));
    }
    return all;
  }
  float load(std::size_t i) const {
    if (type == CUDA_R_32F) return static_cast<float const*>(at)[i];
    unsigned short const bits = static_cast<unsigned short const*>(at)[i];
    return type == CUDA_R_16F ? __half2float(__ushort_as_half(bits)) : __uint_as_float(unsigned{bits} << 16);
  }

  void const* at;
  cudaDataType type;
  std::size_t rows, cols, ld;
};

/// c[m, n] = sum over k of a[m, k] * b[k, n], k ascending; all packed. Of own memory, and long: not watched.
[[gnu::no_sanitize("thread")]] void multiply(float const* a, float const* b, float* c, std::size_t m, std::size_t n,
                                             std::size_t k) {
  for (std::size_t i = 0; i < m * n; ++i) {
    float sum = 0;
    for (std::size_t j = 0; j < k; ++j) sum += a[i % m * k + j] * b[i / m * k + j];
    c[i] = sum;
  }
}

struct Product {
  cublasLtMatmulDescOpaque_t desc;
  Matrix a, b, c, d;
  float alpha = 1, beta = 0;

  cublasStatus_t check() const {
    for (Matrix const* const matrix : {&a, &b, &c, &d}) {
      if (!matrix->is_valid()) return CUBLAS_STATUS_INVALID_VALUE;
    }
    bool const able = desc.data[CUBLASLT_MATMUL_DESC_TRANSA] == CUBLAS_OP_T &&
                      desc.data[CUBLASLT_MATMUL_DESC_TRANSB] == CUBLAS_OP_N && a.type == b.type &&
                      c.type == CUDA_R_32F && d.type == CUDA_R_32F;
    if (!able) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool const fits = a.rows == b.rows && c.rows == a.cols && c.cols == b.cols && d.rows == c.rows && d.cols == c.cols;
    return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
  }

  void run() const {
    std::vector<float> const left = a.packed(), right = b.packed();
    std::vector<float> product(d.rows * d.cols);
    multiply(left.data(), right.data(), product.data(), d.rows, d.cols, a.rows);
    auto* const to = static_cast<float*>(const_cast<void*>(d.at));
    for (std::size_t col = 0; col < d.cols; ++col) {
      for (std::size_t row = 0; row < d.rows; ++row) {
        float const value = alpha * product[col * d.rows + row];
        to[col * d.ld + row] = beta == 0 ? value : value + beta * c.load(col * c.ld + row);
      }
    }
  }
};

cublasStatus_t set(std::uint64_t& place, void const* value, std::size_t size) {
  place = 0;
  std::memcpy(&place, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

// Counts the call of the function that it stands in, and returns from it when a test asked for its failure.
#define CUBLAS_ON_HOST_START()                                         \
  if (int const status = cuda_on_host::start(__func__); status != 0) { \
    return static_cast<cublasStatus_t>(status);                        \
  }                                                                    \
  static_assert(true)

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  CUBLAS_ON_HOST_START();
  *handle = new cublasContext;
  cuda_on_host::count_cublas_handles(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  int const status = cuda_on_host::start(__func__);
  delete handle;
  cuda_on_host::count_cublas_handles(-1);
  return static_cast<cublasStatus_t>(status);
}
char const* cublasGetStatusName(cublasStatus_t status) {
#define CUBLAS_ON_HOST_NAME(name, number) \
  if (status == (name)) return #name;
  CUBLAS_ON_HOST_STATUSES(CUBLAS_ON_HOST_NAME)
  return "CUBLAS_STATUS_UNKNOWN";
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type, uint64_t rows, uint64_t cols,
                                        int64_t ld) {
  CUBLAS_ON_HOST_START();
  *layout = {{static_cast<uint64_t>(type), rows, cols, static_cast<uint64_t>(ld)}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t, cudaDataType_t scale) {
  CUBLAS_ON_HOST_START();
  *desc = {};
  return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              void const* value, size_t size) {
  CUBLAS_ON_HOST_START();
  return set(desc->data[attribute], value, size);
}
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  CUBLAS_ON_HOST_START();
  *preference = {{0, 0, CUBLASLT_REDUCTION_SCHEME_MASK, 0, 256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                                                    size_t size) {
  CUBLAS_ON_HOST_START();
  return set(preference->data[attribute - 1], value, size);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  CUBLAS_ON_HOST_START();
  *returned = 0;
  Product const product{*desc, {nullptr, *a}, {nullptr, *b}, {nullptr, *c}, {nullptr, *d}};
  if (auto const status = product.check(); status != CUBLAS_STATUS_SUCCESS) return status;
  results[0] = {};
  results[0].algo.data[0] = kAlgoMagic;
  std::copy_n(preference->data + kAlignments, 4, results[0].algo.data + 1);
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, void const* alpha, void const* a,
                              cublasLtMatrixLayout_t a_layout, void const* b, cublasLtMatrixLayout_t b_layout,
                              void const* beta, void const* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, cublasLtMatmulAlgo_t const* algo, void*, size_t,
                              cudaStream_t stream) {
  CUBLAS_ON_HOST_START();
  float const scale = *static_cast<float const*>(alpha), scale_c = *static_cast<float const*>(beta);
  Product const product{*desc, {a, *a_layout}, {b, *b_layout}, {c, *c_layout}, {d, *d_layout}, scale, scale_c};
  if (auto const status = product.check(); status != CUBLAS_STATUS_SUCCESS) return status;
  bool promises_kept = algo->data[0] == kAlgoMagic;
  std::uint64_t const* alignment = algo->data + 1;
  for (void const* matrix : {a, b, c, static_cast<void const*>(d)}) {
    promises_kept = promises_kept && reinterpret_cast<std::uintptr_t>(matrix) % *alignment++ == 0;
  }
  if (!promises_kept) return CUBLAS_STATUS_INVALID_VALUE;
  auto const error = cuda_on_host::enqueue(stream, [product] { product.run(); }, {a, b, c, d});
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
