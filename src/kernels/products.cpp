#include "kernels/products.h"

#ifdef REP_ONEDNN
#include <array>
#include <dnnl.hpp>
#include <map>
#include <unordered_map>

#include "tensor/meter.h"
#endif

#include "kernels/lanes.h"

namespace rep {

namespace {

#ifdef REP_ONEDNN

dnnl::memory::data_type type_of(const torch::Tensor& t) {
  using Type = dnnl::memory::data_type;
  return t.scalar_type() == torch::kBFloat16 ? Type::bf16 : Type::f32;
}

// A matrix on the CPU, of fp32 or bf16, in which rows or columns are contiguous.
bool fits_onednn(const torch::Tensor& t) {
  const auto type = t.scalar_type();
  if (!t.is_cpu() || t.numel() == 0) return false;
  if (type != torch::kFloat && !(type == torch::kBFloat16 && pairs_are_fast())) return false;
  return (t.stride(1) == 1 && t.stride(0) >= t.size(1)) ||
         (t.stride(0) == 1 && t.stride(1) >= t.size(0));
}

dnnl::memory::desc description(const torch::Tensor& t) {
  return {t.sizes().vec(), type_of(t), t.strides().vec()};
}

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

struct Matmul {
  dnnl::matmul run;
  dnnl::memory::desc scratch;
};

Matmul make_matmul(const torch::Tensor& out, const torch::Tensor& a, const torch::Tensor& b,
                   const torch::Tensor& bias, bool add) {
  dnnl::primitive_attr attributes;
  // Else each of the hundreds of primitives of a run could keep megabytes of its own.
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum();
    attributes.set_post_ops(sum);
  }
  const auto A = description(a), B = description(b), C = description(out);
  const dnnl::matmul::desc matmul =
      bias.defined() ? dnnl::matmul::desc(A, B, description(bias), C) : dnnl::matmul::desc(A, B, C);
  const dnnl::matmul::primitive_desc plan(matmul, attributes, engine());
  return {dnnl::matmul(plan), plan.scratchpad_desc()};
}

// out = a b + bias [1, N], or out += a b.
void run(const torch::Tensor& out, const torch::Tensor& a, const torch::Tensor& b,
         const torch::Tensor& bias, bool add) {
  // Making a primitive takes longer than a small product: each thread keeps those it has made, one
  // a shape. A run has a few hundred.
  using Key = std::array<int64_t, 13>;
  thread_local std::map<Key, Matmul> made;
  thread_local dnnl::stream stream(engine());
  const auto type = [](const torch::Tensor& t) {
    return t.defined() ? static_cast<int64_t>(t.scalar_type()) : -1;
  };
  const Key key{a.size(0),    a.size(1), b.size(1), a.stride(0), a.stride(1), b.stride(0),
                b.stride(1),  type(a),   type(out), type(bias),  add,         at::get_num_threads(),
                out.stride(0)};
  auto found = made.find(key);
  if (found == made.end()) {
    if (made.size() >= 4096) made.clear();
    found = made.emplace(key, make_matmul(out, a, b, bias, add)).first;
  }
  const auto memory = [](const torch::Tensor& t) {
    return dnnl::memory(description(t), engine(), t.data_ptr());
  };
  std::unordered_map<int, dnnl::memory> arguments{
      {DNNL_ARG_SRC, memory(a)}, {DNNL_ARG_WEIGHTS, memory(b)}, {DNNL_ARG_DST, memory(out)}};
  if (bias.defined()) arguments.emplace(DNNL_ARG_BIAS, memory(bias));
  const Matmul& matmul = found->second;
  torch::Tensor scratch;
  if (const auto bytes = static_cast<int64_t>(matmul.scratch.get_size()); bytes > 0) {
    scratch = torch::empty({bytes}, torch::kByte);
    arguments.emplace(DNNL_ARG_SCRATCHPAD,
                      dnnl::memory(matmul.scratch, engine(), scratch.data_ptr()));
  }
  matmul.run.execute(stream, arguments);
  stream.wait();
  count_macs(a.numel() * b.size(1));
}

#endif

// A processor that does not multiply bf16 multiplies floats, for which the libraries have kernels.
bool widens(const torch::Tensor& a) {
  return a.is_cpu() && a.scalar_type() == torch::kBFloat16 && !pairs_are_fast();
}

}  // namespace

torch::Tensor product(const torch::Tensor& a, const torch::Tensor& b, torch::ScalarType type,
                      const torch::Tensor& bias) {
  if (widens(a)) {
    return product(a.to(torch::kFloat), b.to(torch::kFloat), torch::kFloat,
                   bias.defined() ? bias.to(torch::kFloat) : bias)
        .to(type);
  }
#ifdef REP_ONEDNN
  if (fits_onednn(a) && fits_onednn(b)) {
    const torch::Tensor out = torch::empty({a.size(0), b.size(1)}, a.options().dtype(type));
    run(out, a, b, bias.defined() ? bias.unsqueeze(0) : bias, /*add=*/false);
    return out;
  }
#endif
  if (!bias.defined()) return torch::mm(a, b).to(type);
  return torch::addmm(bias.to(a.scalar_type()), a, b).to(type);
}

void add_product(const torch::Tensor& sum, const torch::Tensor& a, const torch::Tensor& b) {
  if (widens(a)) return add_product(sum, a.to(torch::kFloat), b.to(torch::kFloat));
#ifdef REP_ONEDNN
  if (fits_onednn(a) && fits_onednn(b)) return run(sum, a, b, {}, /*add=*/true);
#endif
  if (a.scalar_type() == sum.scalar_type()) {
    sum.addmm_(a, b);
  } else {
    sum.add_(torch::mm(a, b));
  }
}

}  // namespace rep
