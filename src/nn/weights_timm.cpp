// timm's names, and what differs from them in the files of the authors who build on timm's ViT:
// DINO (dino), iBOT (ibot), DeiT (deit), MAE (mae) and DINOv2 (dinov2, as its training writes
// blocks).
#include <cctype>

#include "nn/weight_names.h"

namespace rep {

namespace {

using layout::keep;

// "blocks.1.13.norm1.weight" is block 13, in chunk 1.
std::string without_chunk(const std::string& name) {
  const std::string blocks = "blocks.";
  if (name.compare(0, blocks.size(), blocks) != 0) return name;
  const auto number_ends = [&](size_t from) {
    size_t end = from;
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    return end > from && end < name.size() && name[end] == '.' ? end : 0;
  };
  const size_t chunk = number_ends(blocks.size());
  return chunk > 0 && number_ends(chunk + 1) > 0 ? blocks + name.substr(chunk + 1) : name;
}

std::vector<NameFamily::Prepared> without_chunks(const NamedTensors& tensors) {
  std::vector<NameFamily::Prepared> result;
  for (const auto& [name, tensor] : tensors) result.push_back({without_chunk(name), tensor, name});
  return result;
}

}  // namespace

const NameFamily& timm_family() {
  static const NameFamily family{
      "",
      "patch_embed.proj.weight",
      "cls_token",
      {{"register_tokens", "reg_token", 3, keep}},
      {"blocks."},
      // DeiT III and iBOT.
      {{"gamma_1", "ls1.gamma", 1, keep}, {"gamma_2", "ls2.gamma", 1, keep}},
      // For pixels that are hidden in training, and what makes them again.
      {"mask_token", "masked_embed", "decoder_"},
      {},
      without_chunks};
  return family;
}

}  // namespace rep
