#include "formats/named_tensors.h"

#include <algorithm>

namespace rep {

// The readers copy the bytes of little-endian formats as they are.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rep needs a little-endian machine");

namespace {

constexpr std::pair<const char*, torch::ScalarType> kDtypes[] = {
    {"F64", torch::kFloat64},   {"F32", torch::kFloat32}, {"F16", torch::kFloat16},
    {"BF16", torch::kBFloat16}, {"I64", torch::kInt64},   {"I32", torch::kInt32},
    {"I16", torch::kInt16},     {"I8", torch::kInt8},     {"U8", torch::kUInt8},
    {"BOOL", torch::kBool},
};
constexpr size_t kMaxNameBytes = 512;

}  // namespace

std::string describe(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

std::string describe(const torch::Tensor& tensor) {
  const std::string dtype = dtype_name(tensor.scalar_type());
  return (dtype.empty() ? "?" : dtype) + " " + describe(tensor.sizes().vec());
}

std::string dtype_name(torch::ScalarType dtype) {
  for (const auto& [name, type] : kDtypes) {
    if (type == dtype) return name;
  }
  return "";
}

std::optional<torch::ScalarType> dtype_of(const std::string& name) {
  for (const auto& [known, type] : kDtypes) {
    if (name == known) return type;
  }
  return std::nullopt;
}

std::optional<int64_t> bytes_of(const std::vector<int64_t>& shape, int64_t item_bytes) {
  if (shape.size() > kMaxDimensions) return std::nullopt;
  int64_t most = item_bytes;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0 || size > kMaxTensorBytes / most) return std::nullopt;
    most *= std::max<int64_t>(size, 1);
    empty = empty || size == 0;
  }
  return empty ? 0 : most;
}

bool is_tensor_name(const std::string& name) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::none_of(name.begin(), name.end(), is_control);
}

bool are_bools(const void* data, size_t bytes) {
  const auto* first = static_cast<const uint8_t*>(data);
  return std::all_of(first, first + bytes, [](uint8_t byte) { return byte <= 1; });
}

}  // namespace rep
