#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/named_tensors.h"

namespace rep {

/// A safetensors file: 8-byte little-endian header length, JSON header, data
/// (https://github.com/huggingface/safetensors, format description). Parsed as hostile: the
/// header's length (at most 100 MiB and inside the file), every dtype, shape (no overflow), every
/// range (inside the data, as long as dtype x shape says, no overlap, no gap) are checked before a
/// byte is used.
struct Safetensors {
  NamedTensors tensors;  // as stored, own memory, in the header's order of offsets
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

/// F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL. Throws Error, one sentence naming file and tensor.
Safetensors read_safetensors(const std::string& path);

/// Names, dtypes and shapes without reading the data, for `rep inspect`.
struct TensorInfo {
  std::string name, dtype;
  std::vector<int64_t> shape;
};
std::vector<TensorInfo> list_safetensors(const std::string& path,
                                         std::map<std::string, std::string>* metadata = nullptr);

/// Written atomically (core/files.h); contiguous CPU copies of the tensors, aligned to 8 bytes.
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace rep
