#pragma once

#include <string>

#include "formats/named_tensors.h"

namespace rep {

/// The tensors of a PyTorch zip checkpoint (.pth, .pt, .bin from torch.save): a state dict, plain
/// or under 'model' or 'state_dict'. A restricted unpickler of ours over libzip:
/// about thirty opcodes and an allow-list of globals (OrderedDict, _rebuild_tensor_v2,
/// _rebuild_parameter, the storage types); any other global becomes an opaque value that is carried
/// and never executed. Throws Error on the legacy (non-zip) format, on anything malformed, and when
/// no tensor is found.
NamedTensors read_torch_zip(const std::string& path);

}  // namespace rep
