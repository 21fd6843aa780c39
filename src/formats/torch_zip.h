#pragma once

#include <string>

#include "formats/named_tensors.h"

namespace rep {

/// The tensors of a PyTorch zip checkpoint (from torch.save, or of TorchScript): a state dict or a
/// module, plain or below the keys that training scripts use (formats/state_dict.h says what `key`
/// picks and what `note` receives). A restricted unpickler of ours over libzip: about thirty
/// opcodes and an allow-list of globals (OrderedDict, _rebuild_tensor_v2, _rebuild_parameter, the
/// storage types); any other global becomes an opaque value that is carried and never executed.
/// Throws Error on the legacy (non-zip) format, on anything malformed, and when no tensor is found.
NamedTensors read_torch_zip(const std::string& path, const std::string& key = "",
                            std::string* note = nullptr);

}  // namespace rep
