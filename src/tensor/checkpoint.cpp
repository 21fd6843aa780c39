#include "tensor/checkpoint.h"

#include "core/error.h"
#include "core/files.h"
#include "formats/safetensors.h"

namespace rep {

void write_checkpoint(const std::string& path, const State& state) {
  write_safetensors(path, state.tensors(), {{"rep", to_text(state.values())}});
}

State read_checkpoint(const std::string& path, const torch::Device& device) {
  Safetensors file = read_safetensors(path);
  const auto values = file.metadata.find("rep");
  if (values == file.metadata.end()) {
    throw Error(absolute_path(path) +
                ": is not a checkpoint of rep (its metadata has no 'rep'); remove it or choose "
                "another --output");
  }
  try {
    return State(std::move(file.tensors), Json::parse(values->second), device);
  } catch (const Json::exception&) {
    throw Error(absolute_path(path) +
                ": the checkpoint's values are not JSON; remove it to start again");
  }
}

}  // namespace rep
