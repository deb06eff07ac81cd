#pragma once

// Stands in for the part of cuBLAS that sida calls: handles and statuses.

#include <cuda_runtime.h>

typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14 } cudaDataType;

#define CUBLAS_ON_HOST_STATUSES(X)      \
  X(CUBLAS_STATUS_SUCCESS, 0)           \
  X(CUBLAS_STATUS_NOT_INITIALIZED, 1)   \
  X(CUBLAS_STATUS_ALLOC_FAILED, 3)      \
  X(CUBLAS_STATUS_INVALID_VALUE, 7)     \
  X(CUBLAS_STATUS_EXECUTION_FAILED, 13) \
  X(CUBLAS_STATUS_INTERNAL_ERROR, 14)   \
  X(CUBLAS_STATUS_NOT_SUPPORTED, 15)
#define CUBLAS_ON_HOST_ENUMERATOR(name, number) name = number,
typedef enum { CUBLAS_ON_HOST_STATUSES(CUBLAS_ON_HOST_ENUMERATOR) } cublasStatus_t;
typedef enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 } cublasOperation_t;
typedef enum { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_32F_PEDANTIC = 69 } cublasComputeType_t;

typedef struct cublasContext* cublasHandle_t;

extern "C" {
cublasStatus_t cublasCreate_v2(cublasHandle_t* handle);
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle);
char const* cublasGetStatusName(cublasStatus_t status);
}
#define cublasCreate cublasCreate_v2
#define cublasDestroy cublasDestroy_v2
