// What a frozen block does to every token by itself, and its large products, against the formulas
// in double precision: in one pass on lanes, and in LibTorch's operations where lanes do not fit.
#include "kernels/token_rows.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/linear.h"
#include "kernels/products.h"
#include "nn/reference_vit.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

Tensor exact(const Tensor& t) { return t.detach().to(torch::kDouble); }

double furthest(const Tensor& actual, const Tensor& expected) {
  return (exact(actual) - expected).abs().max().item<double>();
}

// 48 and 208 fit lanes of any width, 50 none.
class TokenRowsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    torch::manual_seed(5);
    norm = {torch::randn({D}), torch::randn({D}), 1e-6};
  }
  // Rows far from the origin, whose variance a formula with squares' means would lose.
  Tensor x() const { return torch::randn({3, 7, D}) * 2 + 30; }

  const int64_t D = GetParam();
  Norm norm;
};

TEST_P(TokenRowsTest, NormalisesEveryRow) {
  const Tensor rows = x();
  const Tensor expected =
      torch::layer_norm(exact(rows), {D}, exact(norm.weight), exact(norm.bias), 1e-6);
  const Tensor out = normalised(rows, norm, torch::kFloat);
  EXPECT_EQ(out.sizes(), (std::vector<int64_t>{21, D}));
  EXPECT_LT(furthest(out, expected.view({21, D})), 2e-5);
  const Tensor half = normalised(rows, norm, torch::kBFloat16);
  EXPECT_TRUE(torch::equal(half, out.to(torch::kBFloat16)));
}

TEST_P(TokenRowsTest, HasTheGradientOfTheNorm) {
  const Tensor rows = x(), residual = torch::randn({3, 7, D}), dy = torch::randn({21, D});
  const Tensor in = exact(rows).requires_grad_(true);
  torch::layer_norm(in, {D}, exact(norm.weight), exact(norm.bias), 1e-6)
      .backward(exact(dy).view_as(in));
  NormMemory memory;
  normalised(rows, norm, torch::kFloat, &memory);
  EXPECT_LT(furthest(norm_gradient(dy, memory, norm), in.grad()), 1e-5);
  EXPECT_LT(furthest(norm_gradient(dy, memory, norm, residual), in.grad() + exact(residual)), 1e-5);
}

// One without numbers of its own, of which what came out is kept, in either type.
TEST_P(TokenRowsTest, HasTheGradientOfAFoldedNorm) {
  const Tensor rows = x(), residual = torch::randn({3, 7, D}), dy = torch::randn({21, D});
  const Tensor in = exact(rows).requires_grad_(true);
  const Tensor expected = torch::layer_norm(in, {D}, {}, {}, 1e-6);
  expected.backward(exact(dy).view_as(in));
  const Tensor slope = in.grad().view({21, D});
  const Norm folded{{}, {}, 1e-6};
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    NormMemory memory;
    const Tensor out = normalised(rows, folded, type, &memory);
    EXPECT_TRUE(torch::equal(memory.rows, out)) << "kept as it is";
    EXPECT_TRUE(torch::equal(normalised(memory, folded, type), out));
    // Rows of bf16 are off by 2^-9 of up to 4; the slopes are divided by the deviation, 2.
    const double off = type == torch::kFloat ? 2e-5 : 1e-2;
    EXPECT_LT(furthest(out, expected.detach().view({21, D})), off);
    EXPECT_LT(furthest(norm_gradient(dy, memory, folded), slope), off);
    EXPECT_LT(furthest(norm_gradient(dy, memory, folded, residual),
                       slope + exact(residual).view({21, D})),
              off);
  }
}

TEST_P(TokenRowsTest, HasTheGeluOfTheNormalDistribution) {
  const Tensor values = torch::linspace(-9, 9, 40 * D).view({40, D});
  const Tensor in = exact(values).requires_grad_(true);
  const Tensor expected = torch::gelu(in), upstream = torch::randn({40, D});
  expected.backward(exact(upstream));
  EXPECT_LT(furthest(gelu_of(values), expected.detach()), 1e-6);
  Tensor slope = upstream.clone();
  to_gelu_gradient(values, slope);
  EXPECT_LT(furthest(slope, in.grad()), 2e-6);

  // In bf16 to the nearest or beside it, 2^-8 of the number, also where a GELU is nearly 0.
  // LibTorch's, taken for rows that fill no lanes, is x / 2 times 1 + erf, which is off by two
  // units of erf's last place, 2^-24, there; x is -5.5 where a GELU is below these bounds.
  const double near_zero = D % 16 == 0 ? 2e-7 : 5.5 / 2 * 2 / (1 << 24);
  const Tensor half = values.to(torch::kBFloat16), exact_half = exact(half).requires_grad_(true);
  const Tensor expected_half = torch::gelu(exact_half);
  const Tensor off = (exact(gelu_of(half)) - expected_half).abs();
  EXPECT_LT((off - expected_half.abs() / 256).max().item<double>(), near_zero);
  expected_half.sum().backward();
  slope = torch::ones_like(half);
  to_gelu_gradient(half, slope);
  EXPECT_LT(furthest(slope, exact_half.grad()), 1.2 / 256);
}

TEST_P(TokenRowsTest, HasTheQuickGelu) {
  const Tensor values = torch::linspace(-9, 9, 40 * D).view({40, D});
  const auto quick = [](const Tensor& x) { return x * torch::sigmoid(1.702 * x); };
  const Tensor in = exact(values).requires_grad_(true);
  const Tensor expected = quick(in), upstream = torch::randn({40, D});
  expected.backward(exact(upstream));
  EXPECT_LT(furthest(gelu_of(values, Gelu::kQuick), expected.detach()), 2e-6);
  EXPECT_GT(furthest(gelu_of(values), expected.detach()), 1e-2) << "another than the exact one";
  Tensor slope = upstream.clone();
  to_gelu_gradient(values, slope, Gelu::kQuick);
  EXPECT_LT(furthest(slope, in.grad()), 4e-6);

  // In bf16 to the nearest or beside it, also where it is nearly 0: at -9 it is -2e-6.
  const Tensor half = values.to(torch::kBFloat16), exact_half = exact(half).requires_grad_(true);
  const Tensor expected_half = quick(exact_half);
  const Tensor off = (exact(gelu_of(half, Gelu::kQuick)) - expected_half).abs();
  EXPECT_LT((off - expected_half.abs() / 256).max().item<double>(), 1e-7);
  expected_half.sum().backward();
  slope = torch::ones_like(half);
  to_gelu_gradient(half, slope, Gelu::kQuick);
  EXPECT_LT(furthest(slope, exact_half.grad()), 1.2 / 256);
}

TEST_P(TokenRowsTest, PassesOnWhatIsNoNumber) {
  Tensor values = torch::zeros({2, D});
  values[1][3] = std::nanf("");
  for (const auto type : {torch::kFloat, torch::kBFloat16}) {
    for (const Gelu kind : {Gelu::kExact, Gelu::kQuick}) {
      const Tensor out = gelu_of(values.to(type), kind);
      EXPECT_EQ(out.isnan().sum().item<int64_t>(), 1);
      EXPECT_TRUE(out[1][3].isnan().item<bool>());
    }
    EXPECT_EQ(normalised(values, norm, type)[1].isnan().sum().item<int64_t>(), D);
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, TokenRowsTest, ::testing::Values(48, 208, 50),
                         ::testing::PrintToStringParamName());

// Each factor by rows and by columns, whole and part of a larger matrix.
TEST(ProductsTest, MultipliesMatricesHoweverTheyLie) {
  torch::manual_seed(6);
  const Tensor a = torch::randn({37, 70}), b = torch::randn({70, 45}), bias = torch::randn({45});
  const Tensor expected = exact(a).mm(exact(b));
  const auto part = [](const Tensor& t) {
    const Tensor whole = torch::zeros({t.size(0) + 2, t.size(1) + 3});
    whole.narrow(0, 1, t.size(0)).narrow(1, 2, t.size(1)).copy_(t);
    return whole.narrow(0, 1, t.size(0)).narrow(1, 2, t.size(1));
  };
  const auto layouts = [&](const Tensor& t) {
    return std::vector<Tensor>{t, t.t().contiguous().t(), part(t), part(t.t()).t()};
  };
  for (const Tensor& left : layouts(a)) {
    for (const Tensor& right : layouts(b)) {
      EXPECT_LT(furthest(product(left, right, torch::kFloat), expected), 2e-5);
      EXPECT_LT(furthest(product(left, right, torch::kFloat, bias), expected + bias), 2e-5);
      const Tensor sum = torch::ones({37, 45});
      add_product(sum, left, right);
      EXPECT_LT(furthest(sum, expected + 1), 2e-5);
      const Tensor half = product(left.to(torch::kBFloat16), right.to(torch::kBFloat16),
                                  torch::kFloat, bias.to(torch::kBFloat16));
      // 70 products of bf16 factors, each off by 2^-8 at most: 5 deviations of their sum.
      EXPECT_LT(furthest(half, expected + bias), 5 * std::sqrt(70.0) / 256 + 0.02);
    }
  }
}

TEST(LinearTest, HasTheGradientsOfEveryFactor) {
  torch::manual_seed(7);
  torch::nn::Linear layer = make_linear(48, 32);
  torch::nn::LayerNorm norm(torch::nn::LayerNormOptions({48}));
  for (auto& p : norm->parameters()) p.data().normal_();
  const Tensor upstream = torch::randn({2, 9, 32});
  const auto gradients = [&](const auto& forward, bool weights) {
    for (auto* module : {static_cast<torch::nn::Module*>(layer.get()),
                         static_cast<torch::nn::Module*>(norm.get())}) {
      for (auto& p : module->parameters()) p.set_requires_grad(weights);
    }
    torch::manual_seed(8);
    Tensor x = torch::randn({2, 9, 48}).requires_grad_(true);
    std::vector<Tensor> of{x};
    if (weights) of.insert(of.end(), {layer->weight, layer->bias, norm->weight, norm->bias});
    const Tensor out = forward(x);
    std::vector<Tensor> all = torch::autograd::grad({out}, of, {upstream});
    all.push_back(out.detach());
    return all;
  };
  for (const bool weights : {false, true}) {
    const auto expected = gradients(
        [&](const Tensor& x) {
          return kReferenceOperations.project_normed(x, norm, layer, {}, {});
        },
        weights);
    const auto actual =
        gradients([&](const Tensor& x) { return project_normed(x, norm, layer); }, weights);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_TRUE(torch::allclose(actual[i], expected[i], 1e-4, 1e-4)) << weights << i;
    }
  }
}

}  // namespace
}  // namespace rep
