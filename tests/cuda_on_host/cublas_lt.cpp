// cuBLAS handles, and cuBLASLt's matrix product as plain loops. Unlike the other sources this one is compiled with
// every sanitizer, since it reads and writes the matrices.

#include <algorithm>
#include <cstring>
#include <cublasLt.h>
#include <vector>

#include "plumbing.hpp"

struct cublasContext {
  cudaStream_t stream = nullptr;
};

namespace {

using cuda_on_host::start;

// The opaque structs hold each attribute in the place of its number; a preference one place before, since it has eight.
constexpr std::uint64_t kAlgoMagic = 0x73696461;  // in an algorithm's first place; then the alignments of A, B, C, D
constexpr int kAlignments = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES - 1;

/// A matrix as a kernel of cuBLAS sees it.
struct Matrix {
  Matrix(void const* data, cublasLtMatrixLayoutOpaque_t const& layout)
      : at(data),
        type(static_cast<cudaDataType>(layout.data[CUBLASLT_MATRIX_LAYOUT_TYPE])),
        rows(layout.data[CUBLASLT_MATRIX_LAYOUT_ROWS]),
        cols(layout.data[CUBLASLT_MATRIX_LAYOUT_COLS]),
        ld(layout.data[CUBLASLT_MATRIX_LAYOUT_LD]),
        valid((type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF) && rows > 0 && cols > 0 && ld >= rows &&
              layout.data[CUBLASLT_MATRIX_LAYOUT_ORDER] == CUBLASLT_ORDER_COL) {}
  float load(std::size_t row, std::size_t col) const {
    std::size_t const i = col * ld + row;
    if (type == CUDA_R_32F) return static_cast<float const*>(at)[i];
    if (type == CUDA_R_16F) return __half2float(static_cast<__half const*>(at)[i]);
    return __bfloat162float(static_cast<__nv_bfloat16 const*>(at)[i]);
  }
  void store(std::size_t row, std::size_t col, float value) const {
    std::size_t const i = col * ld + row;
    void* const to = const_cast<void*>(at);
    if (type == CUDA_R_32F) {
      static_cast<float*>(to)[i] = value;
    } else if (type == CUDA_R_16F) {
      static_cast<__half*>(to)[i] = __float2half_rn(value);
    } else {
      static_cast<__nv_bfloat16*>(to)[i] = __float2bfloat16_rn(value);
    }
  }

  void const* at;
  cudaDataType type;
  std::size_t rows, cols, ld;
  bool valid;
};

struct Product {
  cublasLtMatmulDescOpaque_t desc;
  Matrix a, b, c, d;
  float alpha = 1, beta = 0;
  bool transpose_a = desc.data[CUBLASLT_MATMUL_DESC_TRANSA] != CUBLAS_OP_N;
  bool transpose_b = desc.data[CUBLASLT_MATMUL_DESC_TRANSB] != CUBLAS_OP_N;
  std::size_t m = transpose_a ? a.cols : a.rows;
  std::size_t k = transpose_a ? a.rows : a.cols;
  std::size_t n = transpose_b ? b.rows : b.cols;

  cublasStatus_t check() const {
    bool const shapes =
        (transpose_b ? b.cols : b.rows) == k && c.rows == m && c.cols == n && d.rows == m && d.cols == n;
    if (!a.valid || !b.valid || !c.valid || !d.valid || !shapes) return CUBLAS_STATUS_INVALID_VALUE;
    auto const compute = desc.data[CUBLASLT_MATMUL_DESC_COMPUTE_TYPE];
    bool const able = (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC) &&
                      desc.data[CUBLASLT_MATMUL_DESC_SCALE_TYPE] == CUDA_R_32F &&
                      desc.data[CUBLASLT_MATMUL_DESC_POINTER_MODE] == CUBLAS_POINTER_MODE_HOST &&
                      desc.data[CUBLASLT_MATMUL_DESC_EPILOGUE] == CUBLASLT_EPILOGUE_DEFAULT;
    bool const types = a.type == b.type && c.type == d.type && (d.type == a.type || d.type == CUDA_R_32F);
    return able && types ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  }

  void run() const {
    std::vector<float> left(m * k), right(k * n), product(m * n);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < k; ++j) left[i * k + j] = transpose_a ? a.load(j, i) : a.load(i, j);
    }
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < k; ++j) right[i * k + j] = transpose_b ? b.load(i, j) : b.load(j, i);
    }
    cuda_on_host::multiply(left.data(), right.data(), product.data(), m, n, k);
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t i = 0; i < m; ++i) {
        float const value = alpha * product[j * m + i];
        d.store(i, j, beta == 0 ? value : value + beta * c.load(i, j));
      }
    }
  }
};

template <class Opaque>
cublasStatus_t set(Opaque* object, int place, void const* value, std::size_t size) {
  if (object == nullptr || value == nullptr || (size != 4 && size != 8)) return CUBLAS_STATUS_INVALID_VALUE;
  object->data[place] = 0;
  std::memcpy(&object->data[place], value, size);
  return CUBLAS_STATUS_SUCCESS;
}
template <class Opaque>
cublasStatus_t destroy(Opaque* object) {
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}

// Counts the call of the function that it stands in, and returns from it when a test asked for its failure.
#define CUBLAS_ON_HOST_START(name)                                               \
  if (int const status = start(name, CUBLAS_STATUS_INTERNAL_ERROR); status != 0) \
  return static_cast<cublasStatus_t>(status)

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  CUBLAS_ON_HOST_START("cublasCreate");
  *handle = new cublasContext;
  cuda_on_host::count_cublas_handles(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  int const status = start("cublasDestroy", CUBLAS_STATUS_INTERNAL_ERROR);
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  cuda_on_host::count_cublas_handles(-1);
  return static_cast<cublasStatus_t>(status);
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  CUBLAS_ON_HOST_START("cublasSetStream");
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  *stream = handle->stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void*, size_t) {
  CUBLAS_ON_HOST_START("cublasSetWorkspace");
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}
char const* cublasGetStatusName(cublasStatus_t status) {
#define CUBLAS_ON_HOST_NAME(name, number) \
  if (status == (name)) return #name;
  CUBLAS_ON_HOST_STATUSES(CUBLAS_ON_HOST_NAME)
  return "CUBLAS_STATUS_UNKNOWN";
}
char const* cublasGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return cublasCreate_v2(reinterpret_cast<cublasHandle_t*>(handle));
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return cublasDestroy_v2(reinterpret_cast<cublasHandle_t>(handle));
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type, uint64_t rows, uint64_t cols,
                                        int64_t ld) {
  *layout = {{static_cast<uint64_t>(type), CUBLASLT_ORDER_COL, rows, cols, static_cast<uint64_t>(ld)}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  CUBLAS_ON_HOST_START(__func__);
  return cublasLtMatrixLayoutInit(*layout = new cublasLtMatrixLayoutOpaque_t, type, rows, cols, ld);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, void const* value,
                                                size_t size) {
  CUBLAS_ON_HOST_START(__func__);
  return set(layout, attribute, value, size);
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t compute, cudaDataType_t scale) {
  *desc = {{static_cast<uint64_t>(compute), static_cast<uint64_t>(scale)}};  // the rest by default 0, but for
  desc->data[CUBLASLT_MATMUL_DESC_EPILOGUE] = CUBLASLT_EPILOGUE_DEFAULT;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  CUBLAS_ON_HOST_START(__func__);
  return cublasLtMatmulDescInit(*desc = new cublasLtMatmulDescOpaque_t, compute, scale);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              void const* value, size_t size) {
  CUBLAS_ON_HOST_START(__func__);
  return set(desc, attribute, value, size);
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  *preference = {{0, 0, CUBLASLT_REDUCTION_SCHEME_MASK, 0, 256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  CUBLAS_ON_HOST_START(__func__);
  return cublasLtMatmulPreferenceInit(*preference = new cublasLtMatmulPreferenceOpaque_t);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                                                    size_t size) {
  CUBLAS_ON_HOST_START(__func__);
  return set(preference, attribute - 1, value, size);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  CUBLAS_ON_HOST_START(__func__);
  if (handle == nullptr || requested < 1) return CUBLAS_STATUS_INVALID_VALUE;
  *returned = 0;
  Product const product{*desc, {nullptr, *a}, {nullptr, *b}, {nullptr, *c}, {nullptr, *d}};
  if (auto const status = product.check(); status != CUBLAS_STATUS_SUCCESS) return status;
  results[0] = {};
  results[0].algo.data[0] = kAlgoMagic;
  std::copy_n(preference->data + kAlignments, 4, results[0].algo.data + 1);
  results[0].wavesCount = 1;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, void const* alpha, void const* a,
                              cublasLtMatrixLayout_t a_layout, void const* b, cublasLtMatrixLayout_t b_layout,
                              void const* beta, void const* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, cublasLtMatmulAlgo_t const* algo, void*, size_t,
                              cudaStream_t stream) {
  CUBLAS_ON_HOST_START(__func__);
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  float const scale = *static_cast<float const*>(alpha), scale_c = *static_cast<float const*>(beta);
  Product const product{*desc, {a, *a_layout}, {b, *b_layout}, {c, *c_layout}, {d, *d_layout}, scale, scale_c};
  if (auto const status = product.check(); status != CUBLAS_STATUS_SUCCESS) return status;
  if (algo != nullptr) {
    bool promises_kept = algo->data[0] == kAlgoMagic;
    std::uint64_t const* alignment = algo->data + 1;
    for (void const* matrix : {a, b, c, static_cast<void const*>(d)}) {
      promises_kept = promises_kept && reinterpret_cast<std::uintptr_t>(matrix) % *alignment++ == 0;
    }
    if (!promises_kept) return CUBLAS_STATUS_INVALID_VALUE;
  }
  auto const error = cuda_on_host::enqueue(stream, [product] { product.run(); }, {a, b, scale_c == 0 ? d : c, d});
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
