#pragma once

#include <cstdint>
#include <string>

#include "formats/safetensors.h"
#include "nn/vit.h"
#include "tensor/torch.h"

namespace rep {

/// A weight file of a vit_nano whose parameters that seed draws; its path.
inline std::string vit_nano_file(const std::string& path, uint64_t seed) {
  torch::manual_seed(seed);
  BackboneConfig config;
  config.name = "vit_nano";
  config.weights = "random";
  Json inputs;
  const VisionTransformer vit = make_vit(config, &inputs);
  NamedTensors tensors;
  for (const auto& item : vit->named_parameters()) tensors.emplace_back(item.key(), item.value());
  write_safetensors(path, tensors, {});
  return path;
}

}  // namespace rep
