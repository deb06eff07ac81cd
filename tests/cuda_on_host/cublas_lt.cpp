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

// What the opaque structs hold: `data` in this order.
enum LayoutField { kType, kRows, kCols, kLd };
enum DescField { kCompute, kScale, kTransA, kTransB };
enum PreferenceField { kWorkspace, kReductions, kAlignment };  // of A, B, C and D
enum AlgoField { kMagic, kAlgoAlignment };
constexpr std::uint64_t kAlgoMagic = 0x73696461;

/// A matrix as a kernel of cuBLAS sees it.
struct Matrix {
  Matrix(void const* data, cublasLtMatrixLayoutOpaque_t const& layout)
      : at(data),
        type(static_cast<cudaDataType>(layout.data[kType])),
        rows(layout.data[kRows]),
        cols(layout.data[kCols]),
        ld(layout.data[kLd]) {}
  bool valid() const {
    return (type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF) && rows > 0 && cols > 0 && ld >= rows;
  }
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
};

struct Product {
  Matrix a, b, c, d;
  bool transpose_a, transpose_b;
  float alpha = 1, beta = 0;

  std::size_t m() const { return transpose_a ? a.cols : a.rows; }
  std::size_t k() const { return transpose_a ? a.rows : a.cols; }
  std::size_t n() const { return transpose_b ? b.rows : b.cols; }

  cublasStatus_t check(cublasLtMatmulDescOpaque_t const& desc) const {
    if (!a.valid() || !b.valid() || !c.valid() || !d.valid()) return CUBLAS_STATUS_INVALID_VALUE;
    if ((transpose_b ? b.cols : b.rows) != k() || c.rows != m() || c.cols != n() || d.rows != m() || d.cols != n()) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    bool const computes =
        (desc.data[kCompute] == CUBLAS_COMPUTE_32F || desc.data[kCompute] == CUBLAS_COMPUTE_32F_PEDANTIC) &&
        desc.data[kScale] == CUDA_R_32F;
    bool const types = a.type == b.type && c.type == d.type && (d.type == a.type || d.type == CUDA_R_32F);
    return computes && types ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  }

  void run() const {
    std::vector<float> left(m() * k()), right(k() * n()), product(m() * n());
    for (std::size_t i = 0; i < m(); ++i) {
      for (std::size_t j = 0; j < k(); ++j) left[i * k() + j] = transpose_a ? a.load(j, i) : a.load(i, j);
    }
    for (std::size_t i = 0; i < n(); ++i) {
      for (std::size_t j = 0; j < k(); ++j) right[i * k() + j] = transpose_b ? b.load(i, j) : b.load(j, i);
    }
    cuda_on_host::multiply(left.data(), right.data(), product.data(), m(), n(), k());
    for (std::size_t j = 0; j < n(); ++j) {
      for (std::size_t i = 0; i < m(); ++i) {
        float const value = alpha * product[j * m() + i];
        d.store(i, j, beta == 0 ? value : value + beta * c.load(i, j));
      }
    }
  }
};

std::uint64_t* field_of(cublasLtMatrixLayout_t layout, int attribute) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return &layout->data[kType];
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return &layout->data[kRows];
    case CUBLASLT_MATRIX_LAYOUT_COLS: return &layout->data[kCols];
    case CUBLASLT_MATRIX_LAYOUT_LD: return &layout->data[kLd];
    default: return nullptr;
  }
}
std::uint64_t* field_of(cublasLtMatmulDesc_t desc, int attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return &desc->data[kTransA];
    case CUBLASLT_MATMUL_DESC_TRANSB: return &desc->data[kTransB];
    default: return nullptr;
  }
}
std::uint64_t* field_of(cublasLtMatmulPreference_t preference, int attribute) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return &preference->data[kWorkspace];
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) return &preference->data[kReductions];
  int const matrix = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
  return matrix >= 0 && matrix < 4 ? &preference->data[kAlignment + matrix] : nullptr;
}

template <class Opaque>
cublasStatus_t set(Opaque* object, int attribute, void const* value, std::size_t size, std::uint64_t only_default) {
  std::uint64_t number = 0;
  if (object == nullptr || value == nullptr || (size != 4 && size != 8)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&number, value, size);
  if (std::uint64_t* const field = field_of(object, attribute)) {
    *field = number;
    return CUBLAS_STATUS_SUCCESS;
  }
  return number == only_default ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

template <class Opaque, class Init>
cublasStatus_t create(Opaque** object, Init const& init) {
  if (object == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *object = new Opaque;
  return init(*object);
}
template <class Opaque>
cublasStatus_t destroy(Opaque* object) {
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t started(char const* function) {
  return static_cast<cublasStatus_t>(start(function, CUBLAS_STATUS_INTERNAL_ERROR));
}
#define SIDA_START_CALL \
  if (auto const status = started(__func__); status != CUBLAS_STATUS_SUCCESS) return status

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (auto const status = started("cublasCreate"); status != CUBLAS_STATUS_SUCCESS) return status;
  *handle = new cublasContext;
  cuda_on_host::count_cublas_handles(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  auto const status = started("cublasDestroy");
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  cuda_on_host::count_cublas_handles(-1);
  return status;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (auto const status = started("cublasSetStream"); status != CUBLAS_STATUS_SUCCESS) return status;
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
  if (auto const status = started("cublasSetWorkspace"); status != CUBLAS_STATUS_SUCCESS) return status;
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}
char const* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR: return "CUBLAS_STATUS_LICENSE_ERROR";
  }
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
  *layout = {{static_cast<uint64_t>(type), rows, cols, static_cast<uint64_t>(ld)}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  SIDA_START_CALL;
  return create(layout, [&](auto made) { return cublasLtMatrixLayoutInit(made, type, rows, cols, ld); });
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, void const* value,
                                                size_t size) {
  SIDA_START_CALL;
  return set(layout, attribute, value, size, CUBLASLT_ORDER_COL);
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t compute, cudaDataType_t scale) {
  *desc = {{static_cast<uint64_t>(compute), static_cast<uint64_t>(scale), CUBLAS_OP_N, CUBLAS_OP_N}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  SIDA_START_CALL;
  return create(desc, [&](auto made) { return cublasLtMatmulDescInit(made, compute, scale); });
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              void const* value, size_t size) {
  SIDA_START_CALL;
  return set(desc, attribute, value, size,
             attribute == CUBLASLT_MATMUL_DESC_EPILOGUE ? std::uint64_t{CUBLASLT_EPILOGUE_DEFAULT} : 0);
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  *preference = {{0, CUBLASLT_REDUCTION_SCHEME_MASK, 256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  SIDA_START_CALL;
  return create(preference, cublasLtMatmulPreferenceInit);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, void const* value,
                                                    size_t size) {
  SIDA_START_CALL;
  return set(preference, attribute, value, size, 0);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  SIDA_START_CALL;
  if (handle == nullptr || preference == nullptr || results == nullptr || returned == nullptr || requested < 1) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *returned = 0;
  Product const product{{nullptr, *a},           {nullptr, *b}, {nullptr, *c}, {nullptr, *d}, desc->data[kTransA] != 0,
                        desc->data[kTransB] != 0};
  if (auto const status = product.check(*desc); status != CUBLAS_STATUS_SUCCESS) return status;
  results[0] = {};
  results[0].algo.data[kMagic] = kAlgoMagic;
  std::copy_n(preference->data + kAlignment, 4, results[0].algo.data + kAlgoAlignment);
  results[0].wavesCount = 1;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, void const* alpha, void const* a,
                              cublasLtMatrixLayout_t a_layout, void const* b, cublasLtMatrixLayout_t b_layout,
                              void const* beta, void const* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, cublasLtMatmulAlgo_t const* algo, void*, size_t,
                              cudaStream_t stream) {
  SIDA_START_CALL;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  Product const product{{a, *a_layout},
                        {b, *b_layout},
                        {c, *c_layout},
                        {d, *d_layout},
                        desc->data[kTransA] != 0,
                        desc->data[kTransB] != 0,
                        *static_cast<float const*>(alpha),
                        *static_cast<float const*>(beta)};
  if (auto const status = product.check(*desc); status != CUBLAS_STATUS_SUCCESS) return status;
  if (algo != nullptr) {
    if (algo->data[kMagic] != kAlgoMagic) return CUBLAS_STATUS_INVALID_VALUE;
    // What the caller promised to the heuristic.
    void const* const matrices[] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) {
      if (reinterpret_cast<std::uintptr_t>(matrices[i]) % algo->data[kAlgoAlignment + i] != 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  auto const error = cuda_on_host::enqueue(stream, [product] { product.run(); }, {a, b, product.beta == 0 ? d : c, d});
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
