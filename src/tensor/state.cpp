#include "tensor/state.h"

#include "core/error.h"
#include "tensor/torch.h"

namespace rep {

namespace {

// Whether `large` has room for all of `small`.
bool has_space(const torch::Tensor& large, const torch::Tensor& small) {
  bool fits = large.dim() == small.dim();
  for (int64_t d = 0; fits && d < small.dim(); ++d) fits = small.size(d) <= large.size(d);
  return fits;
}

torch::Tensor leading_part(torch::Tensor tensor, at::IntArrayRef sizes) {
  for (size_t d = 0; d < sizes.size(); ++d) {
    tensor = tensor.narrow(static_cast<int64_t>(d), 0, sizes[d]);
  }
  return tensor;
}
constexpr int64_t kMaxTensors = 1 << 20;  // of a list

template <class T>
void value(const std::string& name, T& v, bool loading, Json& values) {
  if (!loading) {
    values[name] = v;
    return;
  }
  const auto found = values.find(name);
  if (found == values.end()) throw Error("checkpoint: entry '" + name + "' is missing");
  try {
    v = found->template get<T>();
  } catch (const Json::exception&) {
    throw Error("checkpoint: entry '" + name + "' has the wrong type");
  }
}

}  // namespace

State::State(NamedTensors tensors, Json values, torch::Device device)
    : loading_(true), device_(device), tensors_(std::move(tensors)), values_(std::move(values)) {
  for (const auto& [name, tensor] : tensors_) by_name_.emplace(name, tensor);
}

void State::visit(const std::string& name, torch::Tensor& tensor, const torch::Device& device) {
  const std::string full = prefix_ + name;
  if (!loading_) {
    if (tensor.defined()) tensors_.emplace_back(full, tensor.detach());
    return;
  }
  const auto found = by_name_.find(full);
  if (found == by_name_.end()) {
    if (tensor.defined()) throw Error("checkpoint: tensor '" + full + "' is missing");
    return;
  }
  torch::NoGradGuard no_grad;
  if (tensor.defined() && tensor.sizes() == found->second.sizes()) {
    tensor.copy_(found->second);
  } else if (grows_ && tensor.defined() && has_space(tensor, found->second)) {
    leading_part(tensor, found->second.sizes()).copy_(found->second);
  } else {
    const bool trains = tensor.defined() && tensor.requires_grad();
    tensor = found->second.to(tensor.defined() ? tensor.device() : device,
                              found->second.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
    tensor.set_requires_grad(trains);
  }
}

void State::visit(const std::string& name, std::vector<torch::Tensor>& tensors,
                  const torch::Device& device) {
  tensors.resize(static_cast<size_t>(count(name + ".size", tensors.size(), kMaxTensors)));
  for (size_t i = 0; i < tensors.size(); ++i) {
    visit(name + "." + std::to_string(i), tensors[i], device);
  }
}

void State::operator()(const std::string& name, int64_t& v) {
  value(prefix_ + name, v, loading_, values_);
}
void State::operator()(const std::string& name, double& v) {
  value(prefix_ + name, v, loading_, values_);
}
void State::operator()(const std::string& name, bool& v) {
  value(prefix_ + name, v, loading_, values_);
}
void State::operator()(const std::string& name, std::string& v) {
  value(prefix_ + name, v, loading_, values_);
}
void State::operator()(const std::string& name, Json& v) {
  value(prefix_ + name, v, loading_, values_);
}

void State::operator()(const std::string& name, std::vector<int64_t>& v) {
  value(prefix_ + name, v, loading_, values_);
}

int64_t State::count(const std::string& name, size_t size, int64_t most) {
  auto count = static_cast<int64_t>(size);
  (*this)(name, count);
  if (loading_ && (count < 0 || count > most)) {
    throw Error("checkpoint: entry '" + prefix_ + name + "' is " + std::to_string(count) +
                ", not from 0 to " + std::to_string(most) +
                "; the file is damaged, so start the run anew");
  }
  return count;
}

int64_t State::bytes() const {
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors_) {
    total += tensor.numel() * static_cast<int64_t>(tensor.element_size());
  }
  return total;
}

}  // namespace rep
