#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/loader.h"
#include "nn/vit.h"
#include "tensor/torch.h"
#include "tests/golden.h"

// The ViT-Ti and the batch that the reference numbers were made with, and how to compare with them.
namespace rep::golden {

/// u(seed, shape, e, off)[i] = off + k16(seed, i) 2^(e-15), row-major: exact in float. The one
/// place where tests take seeds from.
inline torch::Tensor u(uint32_t seed, const std::vector<int64_t>& shape, int exponent = 0,
                       float offset = 0) {
  torch::Tensor tensor = torch::empty(shape);
  float* values = tensor.data_ptr<float>();
  const float unit = std::ldexp(1.0F, exponent - 15);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] =
        offset + unit * static_cast<float>(k16(seed + seed_shift(), static_cast<uint32_t>(i)));
  }
  return tensor;
}

/// A parameter of the reference ViT from its line in vit_tiny_plain.json.
inline torch::Tensor parameter(const nlohmann::json& line) {
  return u(line["seed"], line["shape"], line["exp2"], line["offset"]);
}

/// vit_tiny_patch16_224 with the reference parameters. `num_classes` 0 leaves the reference's head
/// of 100 classes out.
inline VisionTransformer make_vit(int64_t num_classes = 100) {
  VitOptions options;  // the defaults are ViT-Ti's sizes
  options.num_classes = num_classes;
  VisionTransformer vit(options);
  torch::NoGradGuard no_grad;
  auto parameters = vit->named_parameters();
  const nlohmann::json file = load("vit_tiny_plain.json");
  for (const auto& line : file["params"]) {
    const std::string name = line["name"];
    if (num_classes == 0 && name.rfind("head.", 0) == 0) continue;
    torch::Tensor* found = parameters.find(name);
    if (found == nullptr) {
      ADD_FAILURE() << "the ViT has no parameter " << name;
    } else {
      found->copy_(parameter(line));
    }
  }
  return vit;
}

/// Four images X(number) [4, 3, 224, 224], noise over coarse 16 x 16 squares, and labels.
inline Batch batch(uint32_t number = 0, const std::vector<int64_t>& labels = {3, 1, 7, 0}) {
  const torch::Tensor squares =
      u(1001 + 10 * number, {4, 3, 14, 14}).repeat_interleave(16, 2).repeat_interleave(16, 3);
  Batch batch;
  batch.images = 0.5 * u(1000 + 10 * number, {4, 3, 224, 224}) + 0.5 * squares;
  batch.labels = torch::tensor(labels, torch::kInt64);
  batch.indices = torch::arange(4, torch::kInt64);
  return batch;
}

// The largest differences allowed. Single and double precision differ by 3e-6 in elements, 3e-7 in
// norms and 4e-7 in losses; LayerNorm's eps 1e-5 for 1e-6 moves elements by 2.3e-4, tanh-GELU by
// 1e-3.
constexpr double kElement = 2e-5;
constexpr double kRelative = 1e-5;
constexpr double kSum = 2e-3;  // of values that nearly cancel

inline double l2(const torch::Tensor& tensor) {
  return tensor.detach().to(torch::kDouble).norm().item<double>();
}

inline double total(const torch::Tensor& tensor) {
  return tensor.detach().to(torch::kDouble).sum().item<double>();
}

inline void expect_relative(double actual, double expected, const std::string& what,
                            double tolerance = kRelative) {
  EXPECT_NEAR(actual, expected, tolerance * std::abs(expected)) << what;
}

/// The leading elements in row-major order.
inline void expect_elements(const torch::Tensor& actual, const nlohmann::json& leading,
                            const std::string& what, double tolerance = kElement) {
  const auto expected = leading.get<std::vector<double>>();
  const torch::Tensor flat = actual.detach().to(torch::kDouble).contiguous().flatten();
  ASSERT_FALSE(expected.empty()) << what;
  ASSERT_GE(flat.numel(), static_cast<int64_t>(expected.size())) << what;
  const double* values = flat.data_ptr<double>();
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], tolerance) << what << ", element " << i;
  }
}

/// A record {"shape", "l2", "sum", "first"} of the reference files.
inline void expect_record(const torch::Tensor& actual, const nlohmann::json& record,
                          const std::string& what, double element_tolerance = kElement) {
  ASSERT_EQ(actual.sizes().vec(), record["shape"].get<std::vector<int64_t>>()) << what;
  expect_elements(actual, record["first"], what, element_tolerance);
  expect_relative(l2(actual), record["l2"], what + ", L2 norm");
  EXPECT_NEAR(total(actual), record["sum"].get<double>(), kSum) << what << ", sum";
}

/// One record an image: row b of `actual` against records[b].
inline void expect_rows(const torch::Tensor& actual, const nlohmann::json& records,
                        const std::string& what) {
  ASSERT_EQ(actual.size(0), static_cast<int64_t>(records.size())) << what;
  for (int64_t b = 0; b < actual.size(0); ++b) {
    expect_record(actual[b], records[static_cast<size_t>(b)],
                  what + " of image " + std::to_string(b));
  }
}

}  // namespace rep::golden
