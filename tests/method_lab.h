#pragma once

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <memory>
#include <string>
#include <vector>

#include "methods/method.h"
#include "methods/network.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"

// A method on a small random ViT that learns two tasks of two classes.
namespace rep::lab {

inline constexpr int64_t kClasses = 4, kPerClass = 5;

class NoisyClasses final : public Dataset {
 public:
  NoisyClasses() {
    for (int64_t label = 0; label < kClasses; ++label) {
      names_.push_back(std::to_string(label));
      labels_.insert(labels_.end(), kPerClass, label);
    }
  }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override {
    Random random({3, static_cast<uint64_t>(index)});
    Image image = Image::make(32, 32);
    for (uint8_t& pixel : image.pixels) {
      pixel = static_cast<uint8_t>(50 * labels_[static_cast<size_t>(index)] + random.below(100));
    }
    return image;
  }
  std::string fingerprint() const override { return "noisy"; }

 private:
  std::vector<int64_t> labels_;
  std::vector<std::string> names_;
};

/// REP's parts as strong as two tasks show them.
inline EfficiencyConfig merging_and_dropping() {
  EfficiencyConfig config;
  config.token_merging.kind = "atom";
  config.token_merging.n = 4;
  config.layer_dropping.kind = "random";
  config.layer_dropping.keep = 0.5;
  return config;
}

struct Lab {
  explicit Lab(const std::string& method_yaml, int64_t trainable_blocks = 0,
               const EfficiencyConfig& config = {}) {
    torch::manual_seed(31);
    backbone = VisionTransformer(vit_options("vit_nano"));
    backbone->train_last_blocks(trainable_blocks);
    efficiency =
        std::make_unique<Efficiency>(config, backbone.ptr(), VisionTransformer{nullptr}, 31);
    const Transform view("none", 32, {}, /*train=*/false);
    TaskImages::Options options;
    options.batch_size = 3;
    images = std::make_unique<TaskImages>(data, view, view, options, torch::Device(torch::kCPU));
    section.node = YAML::Load(method_yaml);
    section.name = section.node["name"].as<std::string>();
    section.where = "test";
    method = Registry<MethodKind>::get()
                 .at(section.name)
                 .value.make({section, backbone.ptr(), *efficiency, *images, kClasses, 2, 31,
                              torch::Device(torch::kCPU), ""});
    for (int64_t t = 0; t < 2; ++t) {
      Task task;
      task.index = t;
      task.first_label = 2 * t;
      task.classes = {2 * t, 2 * t + 1};
      for (int64_t i = 2 * t * kPerClass; i < 2 * (t + 1) * kPerClass; ++i) {
        task.train.push_back({i, i / kPerClass});
      }
      tasks.push_back(task);
    }
  }
  void begin(size_t t) {
    images->set_task(tasks[t]);
    method->begin_task(tasks[t]);
    OptimizerConfig config;
    config.name = "sgd";
    config.lr = 0.05;
    config.momentum = 0.9;
    config.weight_decay = 0.1;
    optimizer = std::make_unique<Optimizer>(config, method->parameters(), method->lr_factors(),
                                            method->trained_rows());
  }
  void step(size_t t, int64_t steps) {
    for (int64_t i = 0; i < steps; ++i) {
      efficiency->set_time({31, static_cast<int64_t>(t), i, iteration++});
      optimizer->zero_grad();
      method->loss(batch(t)).backward();
      method->after_backward();
      optimizer->step();
      method->after_step();
    }
  }
  void learn(size_t t, int64_t steps = 0) {
    begin(t);
    step(t, steps);
    method->end_task(tasks[t]);
  }
  Batch batch(size_t t) {
    Batch all;
    images->set_task(tasks[t]);
    images->each_batch(tasks[t].train, [&](const Batch& b) {
      const Batch copy{b.images.clone(), b.labels.clone(), b.indices.clone()};
      all = all.images.defined() ? joined(all, copy) : copy;
    });
    return all;
  }
  torch::Tensor features(size_t t, const ForwardPlan& plan = {}) {
    torch::NoGradGuard no_grad;
    return backbone->features(batch(t).images, plan);
  }
  torch::Tensor predict(size_t t) {
    torch::NoGradGuard no_grad;
    return method->predict(batch(t));
  }
  // A copy of a tensor of the method's state.
  torch::Tensor carried(const std::string& name) {
    State s;
    method->state(s);
    for (const auto& [key, tensor] : s.tensors()) {
      if (key == name) return tensor.clone();
    }
    ADD_FAILURE() << "no " << name << " in the state";
    return {};
  }
  double value(const std::string& name) {
    State s;
    method->state(s);
    return s.values().at(name).get<double>();
  }

  NoisyClasses data;
  Section section;
  VisionTransformer backbone{nullptr};
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<TaskImages> images;
  std::unique_ptr<Method> method;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<Task> tasks;
  int64_t iteration = 0;
};

}  // namespace rep::lab
