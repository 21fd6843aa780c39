#include "other_device.h"

#include <ATen/ATen.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <torch/version.h>

#include <array>
#include <atomic>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace rep {

namespace {

using torch::Tensor;

// One that LibTorch 1.13 has no kernels for, and moves modules to.
constexpr auto kOther = c10::DeviceType::XPU;
constexpr auto kKey = c10::DispatchKey::XPU;
std::atomic<int64_t> g_reads{0};

bool is_there(const Tensor& t) { return t.defined() && t.device().type() == kOther; }

// The same memory under another device; on the CPU it may be exchanged for more.
c10::Storage storage_on(const c10::Device& device, const c10::Storage& storage) {
  auto* owner = new c10::Storage(storage);
  c10::DataPtr data(
      const_cast<void*>(static_cast<const void*>(storage.data())), owner,
      [](void* p) { delete static_cast<c10::Storage*>(p); }, device);
  return {c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data),
          device.is_cpu() ? c10::GetAllocator(c10::kCPU) : nullptr, /*resizable=*/device.is_cpu()};
}

Tensor as_on(const c10::Device& device, const Tensor& t) {
  const auto key = device.is_cpu() ? c10::DispatchKey::CPU : kKey;
  Tensor result = at::detail::make_tensor<c10::TensorImpl>(storage_on(device, t.storage()),
                                                           c10::DispatchKeySet(key), t.dtype());
  auto* impl = result.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(t.sizes(), t.strides());
  impl->set_storage_offset(t.storage_offset());
  return result;
}

Tensor here(const Tensor& t) { return is_there(t) ? as_on(torch::kCPU, t) : t; }
Tensor there(const Tensor& t) { return t.defined() && !is_there(t) ? as_on(other_device(), t) : t; }

// Arguments that CUDA's operations, too, take from the CPU.
bool may_mix(const std::string& name) {
  static const std::set<std::string> names{"aten::index.Tensor", "aten::index.Tensor_out",
                                           "aten::_index_put_impl_", "aten::index_put_"};
  return names.count(name) > 0;
}

// Puts change(t) for every tensor of an argument or a result.
template <class Change>
void change_tensors(c10::IValue& value, const Change& change) {
  if (value.isTensor()) {
    value = change(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& t : value.toTensorVector()) list.push_back(change(t));
    value = list;
  } else if (value.isList() && value.type()->str().find("Tensor") != std::string::npos) {
    c10::List<c10::optional<Tensor>> list;
    for (const c10::IValue& item : value.toListRef()) {
      list.push_back(item.isNone() ? c10::optional<Tensor>()
                                   : c10::optional<Tensor>(change(item.toTensor())));
    }
    value = list;
  }
}

// Runs any operation on the CPU, with its arguments' memory.
[[maybe_unused]] void on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string name =
      schema.overload_name().empty() ? schema.name() : schema.name() + "." + schema.overload_name();
  if (name == "aten::_local_scalar_dense") ++g_reads;
  const size_t count = schema.arguments().size(), first = stack->size() - count;
  std::map<c10::TensorImpl*, std::pair<Tensor, Tensor>> lent;  // of the CPU's: it, the device's
  const auto lend = [&](const Tensor& t) -> Tensor {
    if (!t.defined()) return t;
    if (!is_there(t)) {
      TORCH_CHECK(t.dim() == 0 || may_mix(name), name, ": a tensor ", t.sizes(),
                  " of the CPU among those of the device");
      return t;
    }
    for (const auto& [impl, pair] : lent) {
      if (pair.second.is_same(t)) return pair.first;
    }
    const Tensor mine = here(t);
    lent.emplace(mine.unsafeGetTensorImpl(), std::make_pair(mine, t));
    return mine;
  };
  for (size_t i = first; i < stack->size(); ++i) {
    change_tensors((*stack)[i], lend);
    if ((*stack)[i].isDevice()) (*stack)[i] = c10::Device(torch::kCPU);
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  // An `out` may have grown.
  for (const auto& [impl, pair] : lent) {
    const auto& [mine, its] = pair;
    if (mine.storage().data() == its.storage().data() && mine.sizes() == its.sizes() &&
        mine.strides() == its.strides()) {
      continue;
    }
    auto* target = its.unsafeGetTensorImpl();
    target->set_storage_keep_dtype(storage_on(other_device(), mine.storage()));
    target->set_sizes_and_strides(mine.sizes(), mine.strides());
    target->set_storage_offset(mine.storage_offset());
  }
  const auto give_back = [&](const Tensor& t) -> Tensor {
    if (!t.defined()) return t;
    const auto found = lent.find(t.unsafeGetTensorImpl());
    return found != lent.end() ? found->second.second : there(t);
  };
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    change_tensors((*stack)[i], give_back);
  }
}

[[maybe_unused]] Tensor empty(at::IntArrayRef size, c10::optional<at::ScalarType> type,
                              c10::optional<at::Layout>, c10::optional<at::Device>,
                              c10::optional<bool>, c10::optional<at::MemoryFormat>) {
  return there(at::empty(size, at::dtype(type.value_or(at::kFloat))));
}

[[maybe_unused]] Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                                      c10::optional<at::ScalarType> type, c10::optional<at::Layout>,
                                      c10::optional<at::Device>, c10::optional<bool>) {
  return there(at::empty_strided(size, stride, at::dtype(type.value_or(at::kFloat))));
}

// Between the devices, either way.
[[maybe_unused]] Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  if (!is_there(to)) ++g_reads;
  here(to).copy_(here(from));
  return to;
}

[[maybe_unused]] Tensor convolution(const Tensor& x, const Tensor& weight,
                                    const c10::optional<Tensor>& bias, at::IntArrayRef stride,
                                    at::IntArrayRef padding, at::IntArrayRef dilation,
                                    bool transposed, at::IntArrayRef output_padding,
                                    int64_t groups) {
  TORCH_CHECK(is_there(x) && is_there(weight), "convolution of tensors of two devices");
  return there(at::convolution(here(x), here(weight),
                               bias ? c10::optional<Tensor>(here(*bias)) : bias, stride, padding,
                               dilation, transposed, output_padding, groups));
}

[[maybe_unused]] std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
    at::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> wanted) {
  const std::vector<int64_t> bias_sizes{weight.size(transposed ? 1 : 0) *
                                        (transposed ? groups : 1)};
  auto [dx, dw, db] =
      at::convolution_backward(here(grad), here(x), here(weight), bias_sizes, stride, padding,
                               dilation, transposed, output_padding, groups, wanted);
  return {there(dx), there(dw), there(db)};
}

#if TORCH_VERSION_MAJOR < 2
C10_REGISTER_GUARD_IMPL(XPU, c10::impl::NoOpDeviceGuardImpl<kOther>);

TORCH_LIBRARY_IMPL(_, XPU, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu>()); }

TORCH_LIBRARY_IMPL(aten, XPU, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}
#endif

}  // namespace

torch::Device other_device() { return {kOther, 0}; }

int64_t reads_of_other_device() { return g_reads; }

}  // namespace rep
