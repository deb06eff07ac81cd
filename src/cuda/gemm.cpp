#include "sida/cuda/gemm.hpp"

#include <algorithm>
#include <bit>
#include <exception>

#include "kernels/cuda/kernels.hpp"
#include "sida/cuda/error.hpp"
#include "sida/detail/try.hpp"

namespace sida::inline v0::cuda {
namespace {

cudaDataType type_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return CUDA_R_32F;
    case Dtype::f16: return CUDA_R_16F;
    case Dtype::bf16: return CUDA_R_16BF;
  }
  return CUDA_R_32F;
}

/// cuBLASLt's view: column-major, so that y^T [n, m] = w [n, k] x^T [k, m], where w is stored transposed. Descriptors
/// live on the stack: nothing is allocated for a product.
struct Problem {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t w, x, y;

  static Result<Problem> of(GemmArgs const& args, std::int64_t m) {
    Problem problem;
    auto const compute = args.dtype == Dtype::f32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    SIDA_TRY(check(cublasLtMatmulDescInit(&problem.product, compute, CUDA_R_32F), "cublasLtMatmulDescInit"));
    cublasOperation_t const transpose = CUBLAS_OP_T;
    SIDA_TRY(check(
        cublasLtMatmulDescSetAttribute(&problem.product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)),
        "cublasLtMatmulDescSetAttribute"));
    auto const type = type_of(args.dtype);
    auto const k = static_cast<std::uint64_t>(args.k);
    auto const n = static_cast<std::uint64_t>(args.n);
    auto const cols = static_cast<std::uint64_t>(m);
    SIDA_TRY(check(cublasLtMatrixLayoutInit(&problem.w, type, k, n, args.k), "cublasLtMatrixLayoutInit"));
    SIDA_TRY(check(cublasLtMatrixLayoutInit(&problem.x, type, k, cols, args.x_stride), "cublasLtMatrixLayoutInit"));
    SIDA_TRY(
        check(cublasLtMatrixLayoutInit(&problem.y, CUDA_R_32F, n, cols, args.y_stride), "cublasLtMatrixLayoutInit"));
    return problem;
  }
};

/// Whether every row of x and w starts at a multiple of 16 bytes: what cuBLASLt's quick kernels want, and then all
/// calls of one shape have the same alignment.
bool is_aligned(GemmArgs const& args) {
  auto const elements = static_cast<std::int64_t>(16 / size_bytes(args.dtype));
  return args.k % elements == 0 && args.x_stride % elements == 0 && args.y_stride % 4 == 0 && args.n % 4 == 0;
}

}  // namespace

Result<Gemm::Choice const*> Gemm::choose(GemmArgs const& args) {
  auto const bucket = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(args.m)));
  Key const key{bucket, args.n, args.k, args.x_stride, args.y_stride, args.dtype};
  auto const known = std::ranges::find(choices_, key, &Choice::key);
  if (known != choices_.end()) return &*known;

  Choice choice{key, false, {}};
  if (is_aligned(args)) {
    SIDA_TRY_ASSIGN(Problem problem, Problem::of(args, bucket));
    cublasLtMatmulPreferenceOpaque_t preference;
    SIDA_TRY(check(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit"));
    auto const prefer = [&preference](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      return check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)),
                   "cublasLtMatmulPreferenceSetAttribute");
    };
    SIDA_TRY(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_.size()}));
    SIDA_TRY(prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE}));
    for (auto const operand :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      SIDA_TRY(prefer(operand, std::uint32_t{16}));
    }
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    cublasStatus_t const status =
        cublasLtMatmulAlgoGetHeuristic(reinterpret_cast<cublasLtHandle_t>(blas_), &problem.product, &problem.w,
                                       &problem.x, &problem.y, &problem.y, &preference, 1, &found, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) SIDA_TRY(check(status, "cublasLtMatmulAlgoGetHeuristic"));
    choice.has_algorithm = status == CUBLAS_STATUS_SUCCESS && count > 0 && found.state == CUBLAS_STATUS_SUCCESS;
    choice.algorithm = found.algo;
  }
  try {
    choices_.push_back(choice);
  } catch (std::exception const&) {
    return Error(Errc::out_of_memory, "out of memory");
  }
  return &choices_.back();
}

Status Gemm::run(cudaStream_t stream, GemmArgs const& args) {
  if (args.m == 0 || args.n == 0) return {};
  SIDA_TRY_ASSIGN(Choice const* const choice, choose(args));
  if (!choice->has_algorithm) {
    return check(kernels::gemm_any(stream, args.dtype, args.x, args.x_stride, args.w, args.y, args.y_stride, args.m,
                                   args.n, args.k, args.adds),
                 "gemm_any");
  }
  SIDA_TRY_ASSIGN(Problem problem, Problem::of(args, args.m));
  float const one = 1.0F;
  float const beta = args.adds ? 1.0F : 0.0F;
  return check(cublasLtMatmul(reinterpret_cast<cublasLtHandle_t>(blas_), &problem.product, &one, args.w, &problem.w,
                              args.x, &problem.x, &beta, args.y, &problem.y, args.y, &problem.y, &choice->algorithm,
                              workspace_.data(), workspace_.size(), stream),
               "cublasLtMatmul");
}

}  // namespace sida::inline v0::cuda
