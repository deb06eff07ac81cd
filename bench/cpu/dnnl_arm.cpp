#include <omp.h>
#include <string>
#include <unordered_map>
#include <utility>

#include <dnnl.hpp>

#include "bench/cpu/expert_arm.hpp"
#include "sida/detail/try.hpp"

namespace sida::bench {
namespace {

using dnnl::memory;

enum class Primitive : std::uint8_t { inner_product, matmul };
enum class Weights : std::uint8_t {
  plain,
  reordered
};  // [n, k] as checkpoints have them, or as the library likes them

struct Variant {
  Primitive primitive;
  Weights weights;
};

struct Size {
  std::int64_t m, n, k;
};

/// y = x W^T, with what follows it in `attributes`.
struct Product {
  dnnl::primitive primitive;
  memory::desc x, w, y;
  memory::desc plain_w;  // W as it is given
};

Product make_product(dnnl::engine const& engine, Variant variant, Size size, memory::data_type operand,
                     memory::data_type result, dnnl::primitive_attr const& attributes) {
  using Tag = memory::format_tag;
  bool const reordered = variant.weights == Weights::reordered;
  memory::desc const x({size.m, size.k}, operand, Tag::ab);
  memory::desc const y({size.m, size.n}, result, Tag::ab);
  if (variant.primitive == Primitive::inner_product) {
    memory::desc const plain({size.n, size.k}, operand, Tag::ab);
    memory::desc const w({size.n, size.k}, operand, reordered ? Tag::any : Tag::ab);
    dnnl::inner_product_forward::primitive_desc const made(
        dnnl::inner_product_forward::desc(dnnl::prop_kind::forward_inference, x, w, y), attributes, engine);
    return {dnnl::inner_product_forward(made), x, made.weights_desc(), y, plain};
  }
  memory::desc const plain({size.k, size.n}, operand, Tag::ba);
  memory::desc const w({size.k, size.n}, operand, reordered ? Tag::any : Tag::ba);
  dnnl::matmul::primitive_desc const made(dnnl::matmul::desc(x, w, y), attributes, engine);
  return {dnnl::matmul(made), x, made.weights_desc(), y, plain};
}

dnnl::primitive_attr with_relu() {
  dnnl::post_ops after;
  after.append_eltwise(1.0F, dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(after);
  return attributes;
}

/// With bf16 weights x is rounded to bf16 first, and the hidden layer as it is written: no primitive of the library
/// multiplies floats by bf16.
class DnnlArm final : public ExpertArm {
 public:
  static Result<std::unique_ptr<ExpertArm>> open(Variant variant, ArmTask const& task) {
    Dtype const dtype = task.experts.layout().shape.dtype;
    if (dtype == Dtype::f16) return Error{Errc::unsupported, "oneDNN: no products of fp16 on a processor"};
    ::omp_set_num_threads(static_cast<int>(task.pool.concurrency()));
    try {
      auto arm = std::unique_ptr<DnnlArm>(new DnnlArm(variant, task, dtype));
      SIDA_TRY(arm->lay_out());
      return std::unique_ptr<ExpertArm>(std::move(arm));
    } catch (dnnl::error const& error) {
      return Error{Errc::unsupported, std::string("oneDNN: ") + error.what()};
    }
  }

  Status run(std::size_t expert, float const* x, float* y) override {
    x_.set_data_handle(const_cast<float*>(x));  // the library's handles have no const; it only reads these
    y_.set_data_handle(y);
    if (narrow_) narrow_.execute(stream_, x_, operand_);
    in_w_.set_data_handle(weights_[2 * expert]);
    out_w_.set_data_handle(weights_[2 * expert + 1]);
    execute(in_, narrow_ ? operand_ : x_, in_w_, hidden_);
    execute(out_, hidden_, out_w_, y_);
    stream_.wait();
    return {};
  }

 private:
  DnnlArm(Variant variant, ArmTask const& task, Dtype dtype)
      : task_(task), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    constexpr auto kModel = ExpertSet::kModel, kHidden = ExpertSet::kHidden;
    auto const wide = memory::data_type::f32;
    auto const type = dtype == Dtype::f32 ? wide : memory::data_type::bf16;
    in_ = make_product(engine_, variant, {task.rows, kHidden, kModel}, type, type, with_relu());
    out_ = make_product(engine_, variant, {task.rows, kModel, kHidden}, type, wide, {});
    x_ = memory({{task.rows, kModel}, wide, memory::format_tag::ab}, engine_, nullptr);
    y_ = memory(out_.y, engine_, nullptr);
    hidden_ = memory(in_.y, engine_);
    in_w_ = memory(in_.w, engine_, nullptr);
    out_w_ = memory(out_.w, engine_, nullptr);
    if (type == wide) return;
    operand_ = memory(in_.x, engine_);
    narrow_ = dnnl::reorder(x_, operand_);
  }

  /// Where the library likes another order, a copy of all weights in that order.
  Status lay_out() {
    std::size_t const in_bytes = slot_bytes_for(in_.w.get_size()), out_bytes = slot_bytes_for(out_.w.get_size());
    bool const copies = in_.w != in_.plain_w || out_.w != out_.plain_w;
    if (copies) {
      std::size_t const all = task_.experts.size() * (in_bytes + out_bytes);
      SIDA_TRY_ASSIGN(copies_, Buffer::allocate(host_memory(), all, kRecordAlignment));
    }
    std::byte* to = copies_.bytes().data();
    for (std::size_t i = 0; i < task_.experts.size(); ++i) {
      auto* const in = const_cast<void*>(task_.experts.in(i));
      auto* const out = const_cast<void*>(task_.experts.out(i));
      weights_.push_back(copies ? to : in);
      weights_.push_back(copies ? to + in_bytes : out);
      if (!copies) continue;
      reorder(in_, in, to);
      reorder(out_, out, to + in_bytes);
      to += in_bytes + out_bytes;
    }
    return {};
  }

  void reorder(Product const& product, void* from, void* to) {
    memory source(product.plain_w, engine_, from), target(product.w, engine_, to);
    dnnl::reorder(source, target).execute(stream_, source, target);
    stream_.wait();
  }

  void execute(Product const& product, memory const& x, memory const& w, memory const& y) {
    product.primitive.execute(stream_, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
  }

  ArmTask task_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  Product in_, out_;
  dnnl::reorder narrow_;
  memory x_, operand_, hidden_, y_, in_w_, out_w_;
  Buffer copies_;
  std::vector<void*> weights_;  // wi and wo of each expert
};

std::string isa_name() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41: return "SSE4.1";
    case dnnl::cpu_isa::avx: return "AVX";
    case dnnl::cpu_isa::avx2: return "AVX2";
    case dnnl::cpu_isa::avx2_vnni: return "AVX2 with VNNI";
    case dnnl::cpu_isa::avx512_core: return "AVX-512";
    case dnnl::cpu_isa::avx512_core_vnni: return "AVX-512 with VNNI";
    case dnnl::cpu_isa::avx512_core_bf16: return "AVX-512 with bf16";
    case dnnl::cpu_isa::avx512_core_amx: return "AMX";
    default: return "another instruction set";
  }
}

}  // namespace

std::vector<ArmSpec> dnnl_arms() {
  std::vector<ArmSpec> specs;
  for (auto const primitive : {Primitive::inner_product, Primitive::matmul}) {
    for (auto const weights : {Weights::plain, Weights::reordered}) {
      std::string const name = primitive == Primitive::matmul ? "oneDNN matmul" : "oneDNN inner product";
      specs.push_back(
          {.name = name + (weights == Weights::plain ? ", plain" : ", reordered"), .open = [=](ArmTask const& task) {
             return DnnlArm::open({primitive, weights}, task);
           }});
    }
  }
  return specs;
}

std::string dnnl_note() {
  dnnl_version_t const& version = *dnnl_version();
  return "oneDNN " + std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
         std::to_string(version.patch) + ", kernels of " + isa_name();
}

}  // namespace sida::bench
