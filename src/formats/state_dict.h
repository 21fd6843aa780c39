#pragma once

#include <string>
#include <utility>
#include <vector>

#include "formats/pickle.h"

namespace rep {

/// The tensors of one part of a checkpoint, by name, unchecked against their storages.
using TensorDescriptions = std::vector<std::pair<std::string, const PickleValue*>>;

struct StateDict {
  TensorDescriptions tensors;
  std::string note;  // which was taken of several; "" where there was no choice
};

/// The model among what training scripts save beside it: dicts of tensors at the root of the pickle
/// or below keys (`model`, `state_dict`, `teacher` ...), and modules saved whole or as TorchScript,
/// whose tensors get the names that a state dict would give them. `key` names the part that is
/// wanted: a key, keys joined by dots, or behind those the beginning of tensors' names, which are
/// then taken away; "" takes the usual one. Throws Error, naming the keys that are there.
StateDict find_state_dict(const std::string& path, const PickleValue& root, const std::string& key);

}  // namespace rep
