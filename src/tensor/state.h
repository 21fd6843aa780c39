#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "formats/named_tensors.h"

namespace rep {

/// What must survive a kill, from ONE list of names that serves saving and loading alike:
///
///   void L2p::state(State& s) { s("prompt", prompt_); s("key", key_); s("seen", seen_); }
///
/// Saving collects; loading copies back into tensors in place (so that an optimiser or a parameter
/// list that holds them stays right), or defines them when they are undefined or of another shape:
/// on the learner's device, unless they are asked for on the CPU.
class State {
 public:
  /// Collects.
  State() = default;
  /// Gives back; `device` is the learner's. Throws Error naming the entry when one is missing.
  State(NamedTensors tensors, Json values, torch::Device device = torch::kCPU);

  bool loading() const { return loading_; }
  /// From now on a tensor that is defined and, in no dimension smaller, larger than what was saved
  /// takes that as its leading rows and columns and keeps the rest of its values.
  void let_grow() { grows_ = true; }
  void operator()(const std::string& name, torch::Tensor& tensor) { visit(name, tensor, device_); }
  void operator()(const std::string& name, std::vector<torch::Tensor>& tensors) {
    visit(name, tensors, device_);
  }
  /// What stays on the CPU, whatever the device.
  void on_cpu(const std::string& name, torch::Tensor& tensor) { visit(name, tensor, torch::kCPU); }
  void on_cpu(const std::string& name, std::vector<torch::Tensor>& tensors) {
    visit(name, tensors, torch::kCPU);
  }
  void operator()(const std::string& name, int64_t& value);
  void operator()(const std::string& name, double& value);
  void operator()(const std::string& name, bool& value);
  void operator()(const std::string& name, std::string& value);
  void operator()(const std::string& name, Json& value);
  void operator()(const std::string& name, std::vector<int64_t>& values);
  /// How many things of a kind follow: `size` when saving. Throws Error when there would be more
  /// than `most`, so that no checkpoint makes memory for them.
  int64_t count(const std::string& name, size_t size, int64_t most);

  /// Names inside are prefixed "scope."
  template <class F>
  void scope(const std::string& name, F&& inside) {
    const std::string outer = prefix_;
    prefix_ += name + ".";
    inside(*this);
    prefix_ = outer;
  }

  const NamedTensors& tensors() const { return tensors_; }
  const Json& values() const { return values_; }
  /// Bytes of all tensors collected.
  int64_t bytes() const;

 private:
  void visit(const std::string& name, torch::Tensor& tensor, const torch::Device& device);
  void visit(const std::string& name, std::vector<torch::Tensor>& tensors,
             const torch::Device& device);
  bool loading_ = false, grows_ = false;
  torch::Device device_ = torch::kCPU;
  std::string prefix_;
  NamedTensors tensors_;
  std::map<std::string, torch::Tensor> by_name_;  // when loading
  Json values_ = Json::object();
};

}  // namespace rep
