#pragma once

#include <string>

#include "tensor/state.h"

namespace rep {

/// One safetensors file: the state's tensors, and its values as JSON under the metadata key "rep".
/// Written atomically: the previous checkpoint stays good until the new one is whole. Throws Error.
void write_checkpoint(const std::string& path, const State& state);

/// A State that gives back what write_checkpoint was handed, to `device`. Throws Error.
State read_checkpoint(const std::string& path, const torch::Device& device);

}  // namespace rep
