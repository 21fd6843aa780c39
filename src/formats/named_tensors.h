#pragma once

#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace rep {

/// Tensors by name, in a fixed order.
using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;
/// A file that claims more dimensions for a tensor is refused.
constexpr size_t kMaxDimensions = 16;

/// "F16 [192, 3, 16, 16]"
std::string describe(const torch::Tensor& tensor);
/// "[192, 3, 16, 16]"
std::string describe(const std::vector<int64_t>& shape);

/// safetensors' name of a dtype: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL, "" for any other.
std::string dtype_name(torch::ScalarType dtype);
std::optional<torch::ScalarType> dtype_of(const std::string& name);

// ---- what the readers of untrusted files share ----

/// What the tensors of one file may take together; a file that claims more is refused before memory
/// is reserved for it.
constexpr int64_t kMaxTensorBytes = int64_t{16} << 30;

/// The bytes of a tensor, or nothing when a size is negative, there are more than 16 of them or the
/// product is over kMaxTensorBytes. A size of 0 counts as 1 there, so that no stride can overflow.
std::optional<int64_t> bytes_of(const std::vector<int64_t>& shape, int64_t item_bytes);

/// A name fit for messages and terminals: 1 to 512 bytes, none of them a control character.
bool is_tensor_name(const std::string& name);

/// Whether every byte is 0 or 1, as C++ demands of a bool that it reads.
bool are_bools(const void* data, size_t bytes);

}  // namespace rep
