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
/// list that holds them stays right), or defines them when they are undefined or of another shape.
class State {
 public:
  /// Collects.
  State() = default;
  /// Gives back. Throws Error naming the entry when one is missing.
  State(NamedTensors tensors, Json values);

  bool loading() const { return loading_; }
  void operator()(const std::string& name, torch::Tensor& tensor);
  void operator()(const std::string& name, std::vector<torch::Tensor>& tensors);
  void operator()(const std::string& name, int64_t& value);
  void operator()(const std::string& name, double& value);
  void operator()(const std::string& name, bool& value);
  void operator()(const std::string& name, std::string& value);
  void operator()(const std::string& name, Json& value);

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
  bool loading_ = false;
  std::string prefix_;
  NamedTensors tensors_;
  std::map<std::string, torch::Tensor> by_name_;  // when loading
  Json values_ = Json::object();
};

}  // namespace rep
