// The fused halves of a block against the same formulas written out in double precision, and what
// they keep for the backward pass.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/mlp.h"
#include "kernels/small_matrices.h"
#include "nn/reference_vit.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

class MeterEnvironment : public ::testing::Environment {
  void SetUp() override { install_meter(); }
};
const auto* const kMeter = ::testing::AddGlobalTestEnvironment(new MeterEnvironment);

struct Case {
  std::string name;
  int64_t B, N, H, d, L;
  bool sizes;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class AttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    torch::manual_seed(1);
    const Case& c = GetParam();
    qkv = torch::randn({c.B, c.N, 3 * c.H * c.d}).mul_(2);
    if (c.L > 0) prefix = torch::randn({c.B, 2, c.L, c.H * c.d});
    if (c.sizes) log_sizes = torch::randint(1, 9, {c.B, c.N}).to(torch::kFloat).log();
    upstream = torch::randn({c.B, c.N, c.H * c.d});
  }

  // softmax(q k^T / sqrt(d) + log sizes) v, head by head, in double precision.
  Tensor reference(const Tensor& x, const Tensor& before) const {
    const Case& c = GetParam();
    const int64_t D = c.H * c.d;
    std::vector<Tensor> heads;
    for (int64_t h = 0; h < c.H; ++h) {
      const Tensor q = x.narrow(2, h * c.d, c.d);
      Tensor k = x.narrow(2, D + h * c.d, c.d), v = x.narrow(2, 2 * D + h * c.d, c.d);
      Tensor bias = torch::zeros({c.B, 1, c.L + c.N}, torch::kDouble);
      if (before.defined()) {
        k = torch::cat({before.select(1, 0).narrow(2, h * c.d, c.d), k}, 1);
        v = torch::cat({before.select(1, 1).narrow(2, h * c.d, c.d), v}, 1);
      }
      if (log_sizes.defined()) {
        bias.narrow(2, c.L, c.N).copy_(log_sizes.unsqueeze(1));
      }
      const Tensor logits = torch::matmul(q, k.transpose(1, 2)) / std::sqrt(double(c.d)) + bias;
      const Tensor e = (logits - logits.amax(-1, true)).exp();
      heads.push_back(torch::matmul(e / e.sum(-1, true), v));
    }
    return torch::cat(heads, 2);
  }

  Tensor qkv, prefix, log_sizes, upstream;
};

void expect_near(const Tensor& actual, const Tensor& expected, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const double scale = expected.abs().max().item<double>();
  EXPECT_LT((actual.to(torch::kDouble) - expected).abs().max().item<double>(), tolerance * scale)
      << what;
}

TEST_P(AttentionTest, EqualsTheFormulaAndItsGradients) {
  for (const auto& attention : {attend, kReferenceOperations.attend}) {
    const Tensor x = qkv.clone().set_requires_grad(true);
    const Tensor exact_x = qkv.to(torch::kDouble).set_requires_grad(true);
    std::vector<Tensor> inputs{x}, exact{exact_x};
    if (prefix.defined()) {
      inputs.push_back(prefix.clone().set_requires_grad(true));
      exact.push_back(prefix.to(torch::kDouble).set_requires_grad(true));
    }
    const Tensor out =
        attention(x, GetParam().H, prefix.defined() ? inputs[1] : Tensor(), log_sizes, {});
    const Tensor expected = reference(exact_x, prefix.defined() ? exact[1] : Tensor());
    expect_near(out, expected, 3e-6, "output");
    const auto gradients = torch::autograd::grad({out}, inputs, {upstream});
    const auto exact_gradients =
        torch::autograd::grad({expected}, exact, {upstream.to(torch::kDouble)});
    for (size_t i = 0; i < gradients.size(); ++i) {
      expect_near(gradients[i], exact_gradients[i], 5e-6, "gradient " + std::to_string(i));
    }
  }
}

// Queries, keys, values and gradients in bf16: what is lost is the rounding of weights and results,
// 2^-9 of each, since sums and softmax stay in fp32.
TEST_P(AttentionTest, OfBf16EqualsTheFormulaToItsRounding) {
  const Tensor x = qkv.to(torch::kBFloat16).set_requires_grad(true);
  const Tensor exact_x = x.detach().to(torch::kDouble).set_requires_grad(true);
  std::vector<Tensor> inputs{x}, exact{exact_x};
  Tensor exact_prefix;
  if (prefix.defined()) {
    inputs.push_back(prefix.clone().set_requires_grad(true));
    exact_prefix = prefix.to(torch::kBFloat16).to(torch::kDouble).set_requires_grad(true);
    exact.push_back(exact_prefix);
  }
  const Tensor up = upstream.to(torch::kBFloat16);
  const Tensor out =
      attend(x, GetParam().H, prefix.defined() ? inputs[1] : Tensor(), log_sizes, {});
  EXPECT_EQ(out.scalar_type(), torch::kBFloat16);
  const Tensor expected = reference(exact_x, exact_prefix);
  expect_near(out, expected, 4e-3, "output");
  const auto gradients = torch::autograd::grad({out}, inputs, {up});
  const auto exact_gradients = torch::autograd::grad({expected}, exact, {up.to(torch::kDouble)});
  for (size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_EQ(gradients[i].scalar_type(), inputs[i].scalar_type());
    expect_near(gradients[i], exact_gradients[i], 8e-3, "gradient " + std::to_string(i));
  }
}

TEST_P(AttentionTest, GivesThePrefixItsGradientWhereNothingElseTrains) {
  if (!prefix.defined()) return;
  const Tensor rows = prefix.clone().set_requires_grad(true);
  const Tensor exact = prefix.to(torch::kDouble).set_requires_grad(true);
  const auto gradient =
      torch::autograd::grad({attend(qkv, GetParam().H, rows, log_sizes)}, {rows}, {upstream});
  const auto expected = torch::autograd::grad({reference(qkv.to(torch::kDouble), exact)}, {exact},
                                              {upstream.to(torch::kDouble)});
  expect_near(gradient[0], expected[0], 5e-6, "gradient");
}

TEST_P(AttentionTest, CountsTheProductsThatTheFormulaHas) {
  const Case& c = GetParam();
  const int64_t product = c.B * c.H * c.N * (c.L + c.N) * c.d;
  const Tensor x = qkv.clone().set_requires_grad(true);
  const Tensor rows = prefix.defined() ? prefix.clone().set_requires_grad(true) : Tensor();
  for (const auto& attention : {attend, kReferenceOperations.attend}) {
    const int64_t start = macs_so_far();
    const Tensor out = attention(x, c.H, rows, log_sizes, {});
    EXPECT_EQ(macs_so_far() - start, 2 * product);
    out.backward(upstream);
    EXPECT_EQ(macs_so_far() - start, 6 * product);
  }
}

TEST_P(AttentionTest, OfSomeQueriesIsThatOfAllForThem) {
  const Case& c = GetParam();
  const TokenRange some{c.N / 3, std::max<int64_t>(1, c.N / 4)};
  for (const auto& attention : {attend, kReferenceOperations.attend}) {
    const Tensor x = qkv.clone().set_requires_grad(true);
    const Tensor rows = prefix.defined() ? prefix.clone().set_requires_grad(true) : Tensor();
    std::vector<Tensor> inputs{x};
    if (rows.defined()) inputs.push_back(rows);
    const int64_t start = macs_so_far();
    const Tensor out = attention(x, c.H, rows, log_sizes, some);
    EXPECT_EQ(macs_so_far() - start, 2 * c.B * c.H * some.count * (c.L + c.N) * c.d);
    const Tensor all = attention(x, c.H, rows, log_sizes, {});
    const Tensor expected = all.narrow(1, some.first, some.count);
    expect_near(out, expected, 1e-6, "output");
    const Tensor up = upstream.narrow(1, some.first, some.count);
    const auto gradients = torch::autograd::grad({out}, inputs, {up});
    const auto expected_gradients = torch::autograd::grad({expected}, inputs, {up});
    for (size_t i = 0; i < gradients.size(); ++i) {
      expect_near(gradients[i], expected_gradients[i], 2e-6, "gradient " + std::to_string(i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         ::testing::Values(Case{"OneToken", 1, 1, 1, 8, 0, false},
                                           Case{"Nano", 2, 65, 3, 32, 0, false},
                                           Case{"Tiny", 2, 197, 3, 64, 0, false},
                                           Case{"WithPrefix", 2, 50, 2, 64, 5, false},
                                           Case{"WithSizes", 3, 33, 2, 16, 0, true},
                                           Case{"WithBoth", 2, 197, 3, 64, 10, true},
                                           Case{"OddWidth", 2, 21, 2, 13, 3, true},
                                           Case{"SeveralTiles", 1, 577, 2, 64, 4, true}),
                         [](const auto& shape) { return shape.param.name; });

TEST(AttentionMemoryTest, KeepsNothingOfSizeNTimesN) {
  if (!lanes_are_fast()) GTEST_SKIP() << "LibTorch's operations keep all weights";
  const int64_t B = 2, N = 400, H = 4, d = 16;
  const Tensor qkv = torch::randn({B, N, 3 * H * d}).set_requires_grad(true);
  attend(qkv, H).sum().backward();  // what a thread keeps for itself is there now
  const int64_t before = tensor_bytes();
  reset_peak_tensor_bytes();
  const Tensor out = attend(qkv, H);
  const int64_t rows = B * H * N * 4;
  EXPECT_LE(tensor_bytes() - before, out.numel() * 4 + rows + 64);
  out.backward(torch::ones_like(out));
  EXPECT_LT(peak_tensor_bytes() - before, B * H * N * N * 4);
}

TEST(AttentionMemoryTest, ANotANumberIsNotLost) {
  Tensor qkv = torch::randn({1, 40, 3 * 32});
  qkv[0][7][3] = std::nan("");
  EXPECT_TRUE(attend(qkv, 2).isnan().any().item<bool>());
}

// Weights and gradients are made again from logarithms of sums, here of e^-89: nothing of them may
// leak into the columns beside the last key, which are there to fill a register.
TEST(AttentionMemoryTest, LogitsFarBelowZeroHaveTheirGradients) {
  torch::manual_seed(6);
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    Tensor qkv = torch::randn({1, 21, 3 * 16}).mul_(0.1);
    qkv.narrow(2, 0, 16) += 5.75f;
    qkv.narrow(2, 16, 16) -= 4.0f;
    const Tensor x = qkv.to(type).set_requires_grad(true);
    const Tensor exact = x.detach().to(torch::kDouble).set_requires_grad(true);
    const Tensor upstream = torch::randn({1, 21, 16}).to(type);
    const auto gradient = torch::autograd::grad({attend(x, 1)}, {x}, {upstream})[0];
    const auto expected = torch::autograd::grad({kReferenceOperations.attend(exact, 1, {}, {}, {})},
                                                {exact}, {upstream.to(torch::kDouble)})[0];
    expect_near(gradient, expected, type == torch::kFloat ? 1e-4 : 2e-2, c10::toString(type));
  }
}

TEST(AttentionMemoryTest, IsTheSameOnOneThreadAndOnTwo) {
  const Tensor qkv = torch::randn({3, 70, 3 * 48});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Tensor one = attend(qkv, 3);
  at::set_num_threads(2);
  const Tensor two = attend(qkv, 3);
  at::set_num_threads(threads);
  EXPECT_TRUE(torch::equal(one, two));
}

// Of 24 in one part, of 512 in four.
class MlpTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    torch::manual_seed(2);
    for (auto& p : norm->parameters()) p.data().normal_();
    freeze(true);
  }
  void freeze(bool frozen) {
    for (auto& p : norm->parameters()) p.set_requires_grad(!frozen);
    for (auto& p : mlp->parameters()) p.set_requires_grad(!frozen);
  }

  const int64_t D = GetParam();
  torch::nn::LayerNorm norm{torch::nn::LayerNormOptions({D})};
  Mlp mlp{D, 4 * D};
  Tensor x = torch::randn({3, 11, D}).set_requires_grad(true);
};

TEST_P(MlpTest, EqualsTheSeparateOperations) {
  const Tensor upstream = torch::randn({3, 11, D});
  const Tensor expected = kReferenceOperations.residual_mlp(x, norm, mlp, 0, {}, {}, {});
  const auto slope = torch::autograd::grad({expected}, {x}, {upstream})[0];
  for (const double recompute : {0.0, 0.5, 1.0}) {
    const Tensor out = residual_mlp(x, norm, mlp, recompute);
    expect_near(out, expected.to(torch::kDouble), 1e-6, "output");
    expect_near(torch::autograd::grad({out}, {x}, {upstream})[0], slope.to(torch::kDouble), 1e-6,
                "gradient");
  }
  const torch::NoGradGuard no_grad;
  expect_near(residual_mlp(x, norm, mlp, 0), expected.to(torch::kDouble), 1e-6, "inference");
}

TEST_P(MlpTest, GivesGradientsToWeightsThatTrain) {
  freeze(false);
  residual_mlp(x, norm, mlp, 0).sum().backward();
  for (const auto& p : mlp->parameters()) EXPECT_GT(p.grad().abs().sum().item<float>(), 0);
  for (const auto& p : norm->parameters()) EXPECT_GT(p.grad().abs().sum().item<float>(), 0);
}

TEST_P(MlpTest, RecomputingKeepsTheRestOfTheHiddenUnits) {
  const auto kept = [&](double recompute) {
    const int64_t before = tensor_bytes();
    const Tensor out = residual_mlp(x, norm, mlp, recompute);
    return tensor_bytes() - before;
  };
  const int64_t hidden = 3 * 11 * 4 * D * 4;
  EXPECT_EQ(kept(0) - kept(1), hidden);
  // In whole parts.
  EXPECT_EQ(kept(0) - kept(0.6), D == 512 ? hidden / 2 : 0);
}

// Products that are made again only to save memory are no work of the method's.
TEST_P(MlpTest, WhatIsRecomputedIsNotCounted) {
  const auto macs = [&](double recompute) {
    const int64_t before = macs_so_far();
    residual_mlp(x, norm, mlp, recompute).sum().backward();
    return macs_so_far() - before;
  };
  EXPECT_EQ(macs(0), 4 * 3 * 11 * 4 * D * D);
  EXPECT_EQ(macs(1), macs(0));
}

INSTANTIATE_TEST_SUITE_P(Widths, MlpTest, ::testing::Values(24, 512),
                         ::testing::PrintToStringParamName());

TEST(Bf16Test, AFrozenVitComesCloseInHalfTheMemory) {
  torch::manual_seed(4);
  VisionTransformer vit(vit_options("vit_nano"));
  vit->train_last_blocks(0);
  const Tensor images = torch::randn({2, 3, 32, 32});
  const auto run = [&](ForwardPlan plan) {
    plan.prompts = torch::full({2, 3, 96}, 0.1f).set_requires_grad(true);
    const Tensor feature = vit->features(images, plan);
    EXPECT_EQ(feature.scalar_type(), torch::kFloat);
    return std::make_pair(feature.detach(),
                          torch::autograd::grad({feature.square().sum()}, {plan.prompts})[0]);
  };
  const auto exact = run({});
  const int64_t before = tensor_bytes();
  vit->multiply_in_bf16();
  EXPECT_LT(tensor_bytes(), before - 6 * 12 * 96 * 96 * 2 + 4096);
  std::vector<const VitOperations*> all{&kFusedOperations};
  if (pairs_are_fast()) all.push_back(&kReferenceOperations);  // LibTorch needs them for bf16
  for (const VitOperations* operations : all) {
    vit->compute_with(*operations);
    const auto close = run({});
    // bf16 keeps 8 bits: products are off by up to 2^-8 each, their sums by less.
    EXPECT_LT((close.first - exact.first).norm().item<double>(),
              0.02 * exact.first.norm().item<double>());
    EXPECT_LT((close.second - exact.second).norm().item<double>(),
              0.05 * exact.second.norm().item<double>());
    EXPECT_GT((close.first - exact.first).norm().item<double>(), 0);
  }
}

// A method may train the norms of a ViT that multiplies in bf16: those keep their numbers.
TEST(Bf16Test, NormsThatTrainAreNotFolded) {
  torch::manual_seed(4);
  VisionTransformer vit(vit_options("vit_nano"));
  vit->train_last_blocks(0);
  for (auto& parameter : vit->blocks[1]->norm2->parameters()) parameter.set_requires_grad(true);
  vit->multiply_in_bf16();
  EXPECT_FALSE(vit->blocks[0]->norm2->weight.defined());
  vit->features(torch::randn({2, 3, 32, 32})).square().sum().backward();
  for (const auto& parameter : vit->blocks[1]->norm2->parameters()) {
    EXPECT_TRUE(parameter.grad().defined());
  }
}

// Matrices of T's numbers, and what their products are made of.
template <class T>
void multiply_within_other_matrices() {
  const auto type = std::is_same_v<T, float> ? torch::kFloat : torch::kBFloat16;
  torch::manual_seed(3);
  for (const int64_t n : {1, 7, 16, 40}) {
    const int64_t m = 13, k = 10, words_of_k = words<T>(k);
    const Tensor a = torch::randn({m, k + 4}).to(type), b = torch::randn({k, n + 3}).to(type);
    const Tensor b_columns = b.narrow(1, 0, n).t().contiguous();
    Tensor c = torch::randn({m, n + 1});
    const Tensor product =
        a.narrow(1, 0, k).to(torch::kFloat).mm(b.narrow(1, 0, n).to(torch::kFloat));
    const Tensor expected = c.narrow(1, 0, n) + 0.5 * product;
    const Tensor beyond = c.select(1, n).clone();
    std::vector<float> rows(size_t(padded(n) * words_of_k)), columns(rows.size());
    // The right factor in two parts, by rows and by columns: the same panels.
    const auto* numbers = static_cast<const T*>(b.data_ptr());
    pack(NumberRows<T>{numbers, n + 3}, 3, n, 0, k, rows.data());
    pack(NumberRows<T>{numbers, n + 3}.from(3), k - 3, n, 3, k, rows.data());
    const int64_t half = n / 2;
    const NumberRows<T> transposed{static_cast<const T*>(b_columns.data_ptr()), k};
    pack_as_columns(transposed.words(), half, words_of_k, 0, n, columns.data());
    pack_as_columns(transposed.from(half).words(), n - half, words_of_k, half, n, columns.data());
    EXPECT_EQ(std::memcmp(rows.data(), columns.data(), rows.size() * sizeof(float)), 0);
    const NumberRows<T> left{static_cast<const T*>(a.data_ptr()), k + 4};
    multiply<T>(m, n, words_of_k, 0.5f, left.words(), rows.data(), true, c.data_ptr<float>(),
                n + 1);
    EXPECT_TRUE(torch::allclose(c.narrow(1, 0, n), expected, 1e-5, 1e-5)) << n;
    EXPECT_TRUE(torch::equal(c.select(1, n), beyond)) << n;
  }
}

// x [m, wide] y [wide, n] and x^T z [m, n], with x made by a product.
template <class T>
void multiply_results() {
  const auto type = std::is_same_v<T, float> ? torch::kFloat : torch::kBFloat16;
  torch::manual_seed(5);
  for (const int64_t m : {1, 6, 11}) {
    const int64_t wide = 32, terms = 27, n = 9;
    const Tensor exact = torch::randn({m, wide});
    const Tensor rounded = exact.to(type).to(torch::kFloat);
    const auto right = [&](int64_t k) { return torch::randn({k, n}).to(type); };
    const auto packed = [&](const Tensor& b) {
      std::vector<float> panels(size_t(padded(n) * words<T>(b.size(0))));
      pack(NumberRows<T>{static_cast<const T*>(b.data_ptr()), n}, b.size(0), n, 0, b.size(0),
           panels.data());
      return panels;
    };
    const Tensor z = right(m), y = right(terms);
    Tensor x = exact.clone(), memory = torch::empty({words<T>(m), wide});
    Tensor c = torch::empty({wide, n});
    multiply<T>(wide, n, words<T>(m), 1,
                as_left_transposed<T>(x.data_ptr<float>(), m, wide, memory.data_ptr<float>()),
                packed(z).data(), false, c.data_ptr<float>(), n);
    EXPECT_TRUE(torch::allclose(c, rounded.t().mm(z.to(torch::kFloat)), 1e-5, 1e-5)) << m;
    EXPECT_TRUE(torch::equal(x, exact));
    c = torch::empty({m, n});
    x.narrow(1, terms, wide - terms).zero_();
    multiply<T>(m, n, words<T>(terms), 1, as_left<T>(x.data_ptr<float>(), m, wide),
                packed(y).data(), false, c.data_ptr<float>(), n);
    EXPECT_TRUE(torch::allclose(c, rounded.narrow(1, 0, terms).mm(y.to(torch::kFloat)), 1e-5, 1e-5))
        << m;
  }
}

TEST(SmallMatricesTest, MultipliesWithinOtherMatrices) { multiply_within_other_matrices<float>(); }

TEST(SmallMatricesTest, MultipliesResults) { multiply_results<float>(); }

TEST(SmallMatricesTest, MultipliesPairsOfBf16) {
  if (!pairs_are_fast()) GTEST_SKIP() << "this processor has no products of bf16";
  multiply_within_other_matrices<Bf16>();
  multiply_results<Bf16>();
}

}  // namespace
}  // namespace rep
