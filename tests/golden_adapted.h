#pragma once

#include <yaml-cpp/yaml.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "methods/method.h"
#include "tensor/torch.h"
#include "tests/golden_method.h"

// Methods that adapt the reference ViT (LoRA, adapters), holding reference values.
namespace rep::golden {

using nlohmann::json;
using torch::Tensor;

inline void expect_gradient(const Tensor& value, const json& record, const std::string& what) {
  ASSERT_TRUE(value.defined()) << what;
  ASSERT_EQ(value.sizes().vec(), record["shape"].get<std::vector<int64_t>>()) << what;
  expect_relative(l2(value), record["l2"], what);
  expect_elements(value, record["first"], what, 2e-6);
}
inline void expect_matrix(const Tensor& actual, const json& rows, const std::string& what,
                          double tolerance = kElement) {
  ASSERT_EQ(actual.size(0), static_cast<int64_t>(rows.size())) << what;
  for (size_t i = 0; i < rows.size(); ++i) {
    expect_elements(actual[static_cast<int64_t>(i)], rows[i], what, tolerance);
  }
}

inline Task task_of(int64_t index, int64_t first, int64_t classes) {
  Task task;
  task.index = index;
  task.first_label = first;
  task.classes.resize(static_cast<size_t>(classes));
  return task;
}

/// What a method stands on: the reference ViT, ten tasks of ten classes, and no images.
struct Ground {
  Ground() { vit->train_last_blocks(0); }
  MethodContext context(const std::string& options) {
    section = Section{"", YAML::Load(options), "test", {}};
    section.name = section.node["name"].as<std::string>();
    return {section, vit.ptr(), efficiency, images, 100, 10, 42, torch::kCPU, ""};
  }
  std::unique_ptr<Method> make(const std::string& options) {
    const MethodContext made = context(options);
    return Registry<MethodKind>::get().at(section.name).value.make(made);
  }
  Section section;
  VisionTransformer vit = make_vit(0);
  NoImages none;
  Transform view{"none", 224, {}, false};
  TaskImages images{none, view, view, TaskImages::Options{}, torch::Device(torch::kCPU)};
  Efficiency efficiency{{}, vit.ptr(), VisionTransformer(nullptr), 42};
};

inline Tensor state_of(Method& method, const std::string& name) {
  State held;
  method.state(held);
  for (const auto& [key, tensor] : held.tensors()) {
    if (key == name) return tensor.clone();
  }
  ADD_FAILURE() << "no " << name << " in the state";
  return torch::zeros({1});
}

inline std::string text(int64_t i) { return std::to_string(i); }
inline uint32_t seed(int64_t value) { return static_cast<uint32_t>(value); }

inline Tensor head_rows(const std::string& part, int64_t rows) {
  static const json file = load("vit_tiny_plain.json");
  return parameter(file["params"][part == "weight" ? 150 : 151]).narrow(0, 0, rows);
}

}  // namespace rep::golden
