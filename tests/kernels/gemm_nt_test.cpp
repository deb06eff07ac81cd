#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <span>
#include <string>
#include <sys/mman.h>
#include <tuple>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "sida/kernels/cpu.hpp"

namespace sida {
namespace {

constexpr float kUntouched = -77.0F;

/// Room for packed rows, full of NaN.
class Packed {
 public:
  explicit Packed(std::size_t bytes) : lines_(bytes / sizeof(Line) + 1) {
    std::memset(this->bytes(), 0xFF, lines_.size() * sizeof(Line));
  }
  std::byte* bytes() { return lines_.front().bytes; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> lines_;
};

/// Memory whose end is the end of what may be touched.
class GuardedEnd {
 public:
  explicit GuardedEnd(std::size_t bytes) : size_(bytes) {
    auto const page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    std::size_t const body = (bytes + page - 1) / page * page;
    mapped_ = body + page;
    void* const at = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    begin_ = static_cast<std::byte*>(at);
    end_ = begin_ + body;
    if (::mprotect(end_, page, PROT_NONE) != 0) throw std::bad_alloc();
  }
  explicit GuardedEnd(std::span<std::byte const> bytes) : GuardedEnd(bytes.size()) { std::ranges::copy(bytes, data()); }
  GuardedEnd(GuardedEnd const&) = delete;
  GuardedEnd& operator=(GuardedEnd const&) = delete;
  ~GuardedEnd() { ::munmap(begin_, mapped_); }

  std::byte* data() const { return end_ - size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data());
  }

 private:
  std::size_t size_, mapped_;
  std::byte* begin_;
  std::byte* end_;
};

/// One product with rows further apart than they are long, and NaN between them.
struct Problem {
  std::int64_t m, n, k;
  Dtype dtype;
  std::int64_t x_stride, w_stride, y_stride;
  std::vector<float> x;           // [m, k] at x_stride
  std::vector<float> wide;        // [n, k] at w_stride: the weights as floats
  std::vector<std::uint8_t> raw;  // the same in `dtype`
  std::vector<float> start;       // [m, n] at y_stride: what is added to; or empty

  Problem(std::int64_t m_, std::int64_t n_, std::int64_t k_, Dtype dtype_, std::mt19937& random, std::int64_t gap = 3)
      : m(m_), n(n_), k(k_), dtype(dtype_), x_stride(k_ + gap), w_stride(k_ + gap + 1), y_stride(n_ + gap) {
    std::normal_distribution<float> normal;
    x.assign(static_cast<std::size_t>(m * x_stride), std::numeric_limits<float>::quiet_NaN());
    wide.assign(static_cast<std::size_t>(n * w_stride), std::numeric_limits<float>::quiet_NaN());
    raw.assign(wide.size() * size_bytes(dtype), 0xFF);  // NaN in all three types
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t c = 0; c < k; ++c) x[static_cast<std::size_t>(i * x_stride + c)] = normal(random);
    }
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t c = 0; c < k; ++c) set_weight(static_cast<std::size_t>(j * w_stride + c), random);
    }
  }

  /// Each y has a value before.
  void start_anywhere(std::mt19937& random) {
    std::normal_distribution<float> normal(0.0F, 10.0F);
    start.assign(static_cast<std::size_t>(m * y_stride), kUntouched);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) start[static_cast<std::size_t>(i * y_stride + j)] = normal(random);
    }
  }

  void set_weight(std::size_t at, std::mt19937& random) {
    float const value = std::normal_distribution<float>()(random);
    if (dtype == Dtype::f32) {
      wide[at] = value;
      std::memcpy(&raw[at * 4], &value, 4);
    } else if (dtype == Dtype::bf16) {
      bf16 const half = to_bf16(value);
      wide[at] = to_float(half);
      std::memcpy(&raw[at * 2], &half, 2);
    } else {
      // Any finite bits: subnormals too, and both signs of zero.
      fp16 const half = {static_cast<std::uint16_t>((random() & 0x8000U) | random() % 0x4400U)};
      wide[at] = to_float(half);
      std::memcpy(&raw[at * 2], &half, 2);
    }
  }

  std::vector<float> run(CpuIsa isa) const { return run(isa, m, n); }
  /// In blocks of `rows` by `cols`, each with rows packed for itself where the instruction set wants them so.
  std::vector<float> run(CpuIsa isa, std::int64_t rows, std::int64_t cols) const {
    std::vector<float> y = start;
    if (start.empty()) y.assign(static_cast<std::size_t>(m * y_stride), kUntouched);
    PackedRows const packing = {isa, dtype, k};
    Packed packed(packing.bytes(rows));
    for (std::int64_t i = 0; i < m; i += rows) {
      std::int64_t const count = std::min(rows, m - i);
      if (packing.is_needed()) packing.pack(x.data() + i * x_stride, x_stride, count, 0, k, packed.bytes());
      for (std::int64_t j = 0; j < n; j += cols) {
        gemm_nt(isa, {.x = x.data() + i * x_stride,
                      .x_stride = x_stride,
                      .w = raw.data() + static_cast<std::size_t>(j * w_stride) * size_bytes(dtype),
                      .w_stride = w_stride,
                      .y = y.data() + i * y_stride + j,
                      .y_stride = y_stride,
                      .m = count,
                      .n = std::min(cols, n - j),
                      .k = k,
                      .w_dtype = dtype,
                      .packed = packing.is_needed() ? packed.bytes() : nullptr,
                      .adds = !start.empty()});
      }
    }
    return y;
  }

  void expect_near(CpuIsa isa, std::vector<float> const& y) const {
    bool const rounds = PackedRows{isa, dtype, k}.is_needed();
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = start.empty() ? 0 : double{start[static_cast<std::size_t>(i * y_stride + j)]};
        double magnitude = std::abs(sum);
        for (std::int64_t c = 0; c < k; ++c) {
          float const value = x[static_cast<std::size_t>(i * x_stride + c)];
          double const product = double{rounds ? to_float(to_bf16(value)) : value} *
                                 double{wide[static_cast<std::size_t>(j * w_stride + c)]};
          sum += product;
          magnitude += std::abs(product);
        }
        // Rounding of any order of summation: k eps times the sum of magnitudes (Higham, 3.5).
        double const bound = static_cast<double>(k + 1) * std::numeric_limits<float>::epsilon() * magnitude + 1e-40;
        ASSERT_NEAR(y[static_cast<std::size_t>(i * y_stride + j)], sum, bound)
            << "y[" << i << ", " << j << "] of m " << m << ", n " << n << ", k " << k;
      }
      for (std::int64_t j = n; j < y_stride; ++j) {
        ASSERT_EQ(y[static_cast<std::size_t>(i * y_stride + j)], kUntouched) << "wrote past row " << i;
      }
    }
  }
};

class GemmNt : public testing::TestWithParam<std::tuple<CpuIsa, Dtype>> {
 protected:
  CpuIsa isa() const { return std::get<0>(GetParam()); }
  Dtype dtype() const { return std::get<1>(GetParam()); }
  std::mt19937 random_{20240607};
};

INSTANTIATE_TEST_SUITE_P(Kernels, GemmNt,
                         testing::Combine(testing::ValuesIn(runnable_cpu_isas().begin(), runnable_cpu_isas().end()),
                                          testing::Values(Dtype::f32, Dtype::f16, Dtype::bf16)),
                         [](auto const& test) {
                           return std::string(to_string(std::get<0>(test.param))) + "_" +
                                  std::string(to_string(std::get<1>(test.param)));
                         });

TEST_P(GemmNt, AgreesWithDoublePrecisionOnSmallOddShapes) {
  for (std::int64_t m = 1; m <= 17; m += 1 + m / 8) {
    for (std::int64_t n = 1; n <= 19; n += 1 + n / 9) {
      for (std::int64_t k = 1; k <= 70; k += 1 + static_cast<std::int64_t>(random_() % 5)) {
        Problem const problem(m, n, k, dtype(), random_);
        problem.expect_near(isa(), problem.run(isa()));
      }
    }
  }
}

TEST_P(GemmNt, AgreesWithDoublePrecisionOnLongRows) {
  for (std::int64_t const k : {767, 768, 1023, 1024, 1025, 2048, 3072, 3077}) {
    for (std::int64_t const m : {1, 2, 5, 17, 67}) {
      Problem const problem(m, 11, k, dtype(), random_);
      problem.expect_near(isa(), problem.run(isa()));
    }
  }
}

TEST_P(GemmNt, AddsToWhatIsThere) {
  for (auto const& [m, n, k] :
       {std::tuple(1, 9, 40), {5, 17, 300}, {16, 32, 64}, {37, 70, 1500}, {130, 70, 1500}, {300, 40, 2100}}) {
    Problem problem(m, n, k, dtype(), random_);
    problem.start_anywhere(random_);
    std::vector<float> const sums = problem.run(isa());
    problem.expect_near(isa(), sums);
    EXPECT_EQ(problem.run(isa(), 16, 32), sums) << "m " << m << ", n " << n << ", k " << k;
  }
}

TEST_P(GemmNt, GivesTheSameBytesHoweverRowsAndColumnsAreSplit) {
  for (std::int64_t const k : {5, 64, 71, 768, 1030, 3072}) {
    Problem const problem(19, 73, k, dtype(), random_);
    std::vector<float> const whole = problem.run(isa());
    for (std::int64_t const rows : {1, 2, 3, 4, 5, 7, 16, 19}) {
      for (std::int64_t const cols : {1, 2, 3, 4, 7, 8, 9, 64, 73}) {
        std::vector<float> const split = problem.run(isa(), rows, cols);
        ASSERT_EQ(std::memcmp(whole.data(), split.data(), whole.size() * sizeof(float)), 0)
            << "blocks of " << rows << " x " << cols << ", k " << k;
      }
    }
  }
}

TEST_P(GemmNt, GivesTheSameBytesForARowAmongManyAndAlone) {
  Problem const problem(130, 5, 1100, dtype(), random_);
  std::vector<float> const whole = problem.run(isa());
  std::vector<float> const rows = problem.run(isa(), 1, 5);
  EXPECT_EQ(std::memcmp(whole.data(), rows.data(), whole.size() * sizeof(float)), 0);
}

TEST_P(GemmNt, AgreesWithDoublePrecisionOnManyRowsAndColumns) {
  for (auto const& [m, n, k] :
       {std::tuple{31, 150, 768}, {64, 150, 300}, {97, 70, 1030}, {300, 70, 768}, {100, 70, 2100}}) {
    Problem const problem(m, n, k, dtype(), random_);
    problem.expect_near(isa(), problem.run(isa()));
  }
}

// How a product is cut depends on its rows, on its columns, and on how far apart rows of W are.
TEST_P(GemmNt, GivesTheSameBytesForManyRowsHoweverTheyAreSplit) {
  for (auto const& [k, gap] : {std::pair{768, 3}, {1000, 23}, {2100, 3}}) {
    Problem const problem(333, 190, k, dtype(), random_, gap);
    std::vector<float> const whole = problem.run(isa());
    for (auto const& [rows, cols] :
         {std::pair{1, 190}, {16, 64}, {26, 190}, {48, 130}, {70, 33}, {84, 190}, {130, 190}, {333, 32}}) {
      std::vector<float> const split = problem.run(isa(), rows, cols);
      ASSERT_EQ(std::memcmp(whole.data(), split.data(), whole.size() * sizeof(float)), 0)
          << "blocks of " << rows << " x " << cols << ", k " << k;
    }
  }
}

TEST_P(GemmNt, ReadsNothingPastTheEndsOfItsOperands) {
  for (std::int64_t const k : {1, 31, 64, 100, 2100}) {
    for (auto const& [m, n] : {std::pair{1, 1}, {3, 9}, {7, 70}, {20, 33}, {100, 130}}) {
      Problem const problem(m, n, k, dtype(), random_, 0);
      std::vector<float> const expected = problem.run(isa());
      PackedRows const packing = {isa(), dtype(), k};
      GuardedEnd const x(std::as_bytes(std::span(problem.x).first(static_cast<std::size_t>(m * k))));
      // The last row of W lacks what would separate it from another.
      std::size_t const gap = size_bytes(dtype());
      GuardedEnd const w(std::as_bytes(std::span(problem.raw).first(problem.raw.size() - gap)));
      GuardedEnd const packed(packing.bytes(m));
      if (packing.is_needed()) packing.pack(x.as<float>(), k, m, 0, k, packed.data());
      GuardedEnd const y(static_cast<std::size_t>(m * n) * sizeof(float));
      gemm_nt(isa(), {.x = x.as<float>(),
                      .x_stride = k,
                      .w = w.data(),
                      .w_stride = problem.w_stride,
                      .y = y.as<float>(),
                      .y_stride = n,
                      .m = m,
                      .n = n,
                      .k = k,
                      .w_dtype = dtype(),
                      .packed = packing.is_needed() ? packed.data() : nullptr});
      EXPECT_EQ(std::memcmp(y.data(), expected.data(), expected.size() * sizeof(float)), 0)
          << "m " << m << ", n " << n << ", k " << k;
    }
  }
}

TEST_P(GemmNt, ReadsRowsThatWerePackedTogetherOrInParts) {
  for (std::int64_t const k : {5, 64, 100, 768}) {
    Problem const problem(53, 37, k, dtype(), random_);
    PackedRows const packing = {isa(), dtype(), k};
    EXPECT_EQ(packing.bytes(53) != 0, packing.is_needed());
    if (!packing.is_needed()) continue;
    Packed whole(packing.bytes(53)), parts(packing.bytes(53));
    packing.pack(problem.x.data(), problem.x_stride, 53, 0, k, whole.bytes());
    for (std::int64_t c = 0; c < k; c += 64) {
      packing.pack(problem.x.data() + c, problem.x_stride, 53, c, std::min<std::int64_t>(64, k - c), parts.bytes());
    }
    std::vector<float> const alone = problem.run(isa(), 1, 37);
    for (std::byte const* packed : {whole.bytes(), parts.bytes()}) {
      std::vector<float> y(alone.size(), kUntouched);
      for (std::int64_t i = 0; i < 53; i += 16) {
        gemm_nt(isa(), {.w = problem.raw.data(),
                        .w_stride = problem.w_stride,
                        .y = y.data() + i * problem.y_stride,
                        .y_stride = problem.y_stride,
                        .m = std::min<std::int64_t>(16, 53 - i),
                        .n = 37,
                        .k = k,
                        .w_dtype = dtype(),
                        .packed = packed + packing.bytes(i)});
      }
      EXPECT_EQ(y, alone) << "k " << k;
    }
  }
}

TEST_P(GemmNt, RoundsNothingThatIsNotPacked) {
  Problem const problem(9, 23, 300, dtype(), random_);
  auto const unpacked = [&](CpuIsa isa) {
    std::vector<float> y(9 * 23);
    gemm_nt(isa, {.x = problem.x.data(),
                  .x_stride = problem.x_stride,
                  .w = problem.raw.data(),
                  .w_stride = problem.w_stride,
                  .y = y.data(),
                  .y_stride = 23,
                  .m = 9,
                  .n = 23,
                  .k = 300,
                  .w_dtype = dtype()});
    return y;
  };
  EXPECT_EQ(unpacked(isa()), unpacked(std::min(isa(), CpuIsa::avx512)));
}

TEST_P(GemmNt, WritesOrAddsZerosWhenThereIsNothingToSum) {
  std::vector<float> y(6, kUntouched);
  Packed packed(0);
  GemmArgs args = {.y = y.data(), .y_stride = 3, .m = 2, .n = 3, .k = 0, .w_dtype = dtype(), .adds = true};
  if (PackedRows{isa(), dtype(), 0}.is_needed()) args.packed = packed.bytes();
  gemm_nt(isa(), args);
  EXPECT_EQ(y, std::vector<float>(6, kUntouched));
  args.adds = false;
  gemm_nt(isa(), args);
  EXPECT_EQ(y, std::vector<float>(6, 0.0F));
}

TEST_P(GemmNt, TouchesNothingWithoutRowsOrColumns) {
  Problem const problem(2, 2, 9, dtype(), random_);
  float y = kUntouched;
  GemmArgs args = {.x = problem.x.data(),
                   .x_stride = 12,
                   .w = problem.raw.data(),
                   .w_stride = 13,
                   .y = &y,
                   .y_stride = 1,
                   .m = 0,
                   .n = 2,
                   .k = 9,
                   .w_dtype = dtype()};
  Packed packed(1024);
  if (PackedRows{isa(), dtype(), 9}.is_needed()) args.packed = packed.bytes();
  gemm_nt(isa(), args);
  args.m = 2;
  args.n = 0;
  gemm_nt(isa(), args);
  EXPECT_EQ(y, kUntouched);
}

TEST(ReluPack, IsThereForAmxWithBf16Alone) {
  for (CpuIsa const isa : runnable_cpu_isas()) {
    for (Dtype const dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
      EXPECT_EQ(packs_relu({isa, dtype, 64}), isa == CpuIsa::amx_bf16 && dtype == Dtype::bf16) << to_string(isa);
    }
  }
}

std::vector<CpuIsa> isas_that_pack_relu() {
  std::vector<CpuIsa> isas;
  for (CpuIsa const isa : runnable_cpu_isas()) {
    if (packs_relu({isa, Dtype::bf16, 64})) isas.push_back(isa);
  }
  return isas;
}

class GemmNtReluPack : public testing::TestWithParam<CpuIsa> {};

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GemmNtReluPack);
INSTANTIATE_TEST_SUITE_P(Kernels, GemmNtReluPack, testing::ValuesIn(isas_that_pack_relu()),
                         [](auto const& test) { return std::string(to_string(test.param)); });

TEST_P(GemmNtReluPack, PacksAHiddenLayerAsIfItHadBeenWrittenFirst) {
  CpuIsa const isa = GetParam();
  constexpr Dtype dtype = Dtype::bf16;
  std::mt19937 random(7);
  struct Case {
    std::int64_t m, n, k, gap;
  };
  for (auto const& [m, n, k, gap] : {Case{1, 1, 5, 3},
                                     {3, 70, 0, 3},
                                     {16, 160, 100, 3},
                                     {40, 255, 768, 3},
                                     {26, 320, 768, 3},
                                     {64, 320, 768, 3},
                                     {84, 320, 768, 3},
                                     {40, 200, 300, 2000},
                                     {20, 300, 300, 723},
                                     {30, 200, 100, 2000},
                                     {130, 320, 768, 255},
                                     {300, 260, 700, 3}}) {
    Problem problem(m, n, k, dtype, random, gap);
    PackedRows const packing = {isa, dtype, n};
    // Rows that are filled up with zeros stay zeros, whatever they are multiplied with.
    bf16 const infinity = to_bf16(std::numeric_limits<float>::infinity());
    if (k > 0) std::memcpy(problem.raw.data(), &infinity, 2);
    if (k > 0) problem.x[0] = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> y = problem.run(isa);
    for (float& value : y) value = value < 0.0F ? 0.0F : value;
    Packed expected(packing.bytes(m)), packed_x(PackedRows{isa, dtype, k}.bytes(m));
    packing.pack(y.data(), problem.y_stride, m, 0, n, expected.bytes());
    PackedRows{isa, dtype, k}.pack(problem.x.data(), problem.x_stride, m, 0, k, packed_x.bytes());
    for (std::int64_t const cols : {std::int64_t{32}, std::int64_t{96}, n}) {
      GuardedEnd const fused(packing.bytes(m));
      for (std::int64_t first = 0; first < n; first += cols) {
        gemm_nt_relu_pack({.w = problem.raw.data() + first * problem.w_stride * 2,
                           .w_stride = problem.w_stride,
                           .m = m,
                           .n = std::min(cols, n - first),
                           .k = k,
                           .w_dtype = dtype,
                           .packed = packed_x.bytes(),
                           .adds = true},  // means nothing here
                          packing, first, fused.data());
      }
      EXPECT_EQ(std::memcmp(fused.data(), expected.bytes(), packing.bytes(m)), 0)
          << "m " << m << ", n " << n << ", k " << k << ", columns " << cols;
    }
  }
}

TEST(CpuIsa, NamesReadBack) {
  for (CpuIsa const isa : runnable_cpu_isas()) EXPECT_EQ(parse_cpu_isa(to_string(isa)), isa);
  EXPECT_EQ(parse_cpu_isa("AVX2"), std::nullopt);
  EXPECT_EQ(parse_cpu_isa(""), std::nullopt);
}

TEST(CpuIsa, PortableAlwaysRunsAndTheBestIsTheLast) {
  ASSERT_FALSE(runnable_cpu_isas().empty());
  EXPECT_EQ(runnable_cpu_isas().front(), CpuIsa::portable);
  EXPECT_EQ(runnable_cpu_isas().back(), best_cpu_isa());
}

}  // namespace
}  // namespace sida
