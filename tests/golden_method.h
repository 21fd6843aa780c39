#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "methods/method.h"
#include "tests/golden_vit.h"

// A method on the reference ViT, holding reference values.
namespace rep::golden {

/// A data set of no images, for methods that are handed their batches.
class NoImages final : public Dataset {
 public:
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t) const override { return {}; }
  std::string fingerprint() const override { return ""; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_;
};

using Values = std::map<std::string, torch::Tensor>;

/// Puts values into the method's state.
inline void replace(Method& method, Values values) {
  State saved;
  method.state(saved);
  NamedTensors tensors;
  size_t given = 0;
  for (const auto& [name, tensor] : saved.tensors()) {
    const auto found = values.find(name);
    given += found != values.end();
    tensors.emplace_back(name, found == values.end() ? tensor.clone() : found->second);
  }
  EXPECT_EQ(given, values.size()) << "the state lacks a name";
  State state(tensors, saved.values());
  method.state(state);
}

/// What trains, by its name in the state.
inline Values named_parameters(Method& method) {
  State held;
  method.state(held);
  Values named;
  for (const auto& [name, tensor] : held.tensors()) {
    for (const auto& parameter : method.parameters()) {
      if (parameter.data_ptr() == tensor.data_ptr()) named.emplace(name, parameter);
    }
  }
  return named;
}

/// The method that `options` (YAML, with its name) describe, at task `task` of ten with ten classes
/// each; `values` replace what its state holds under these names, and the reference head is put in.
class GoldenMethod {
 public:
  GoldenMethod(const std::string& options, int64_t task, Values values,
               const EfficiencyConfig& rep = {})
      : section_{"", YAML::Load(options), "", {}},
        efficiency(rep, backbone_.ptr(), VisionTransformer(nullptr), 42) {
    section_.name = section_.node["name"].as<std::string>();
    const nlohmann::json file = load("vit_tiny_plain.json");
    const Values head{{"head.weight", golden::parameter(file["params"][150])},
                      {"head.bias", golden::parameter(file["params"][151])}};
    backbone_->train_last_blocks(0);
    method = Registry<MethodKind>::get()
                 .at(section_.name)
                 .value.make({section_, backbone_.ptr(), efficiency, images_, 100, 10, 42,
                              torch::kCPU, ""});
    Task now;
    now.index = task;
    now.first_label = 10 * task;
    now.classes.resize(10);
    method->begin_task(now);

    State saved;
    method->state(saved);
    for (const auto& [name, tensor] : saved.tensors()) {
      const auto own = head.find(name);
      if (own != head.end()) values.insert(*own);
    }
    replace(*method, std::move(values));
    parameters = named_parameters(*method);
  }

 private:
  Section section_;
  VisionTransformer backbone_ = make_vit(0);
  NoImages none_;
  Transform view_{"none", 224, {}, false};
  TaskImages images_{none_, view_, view_, TaskImages::Options{}, torch::Device(torch::kCPU)};

 public:
  Efficiency efficiency;
  Values parameters;  // what trains, by its name in the state
  std::unique_ptr<Method> method;
};

}  // namespace rep::golden
