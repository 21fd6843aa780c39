#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "nn/vit.h"
#include "formats/named_tensors.h"

namespace rep {

/// Every tensor of a weight file, by its suffix: .safetensors, .npz (Google's ViT names are
/// translated to timm's), .pth/.pt/.bin. Throws Error.
NamedTensors read_weights(const std::string& path);

/// Google's names and layouts of a ViT (Flax, as in its .npz files) to timm's; other names stay.
/// `path` names the file in messages.
NamedTensors timm_names(const NamedTensors& google, const std::string& path);

/// What loading did, for the result: {"path", "sha256", "bytes"} or {"path": "random", "warning":
/// ...}.
struct LoadedWeights {
  Json inputs;
};

/// Fills `vit` from a file, or leaves its random initialisation when `weights` is "random". Names
/// are timm's. Position embeddings of another grid are interpolated (bicubic, as timm's
/// resample_abs_pos_embed). A classification head in the file is ignored unless `vit` has one of
/// that shape. A missing, extra or wrongly shaped tensor is an Error naming it and the file.
LoadedWeights load_weights(VisionTransformer& vit, const std::string& weights);

/// pos_embed [1, 1 + n n, D] -> [1, 1 + grid grid, D], the class token's row kept as it is.
torch::Tensor resample_positions(const torch::Tensor& pos_embed, int64_t grid);

/// The width and depth of a ViT whose tensors have these names and shapes; 0 where they do not
/// tell.
struct VitSize {
  int64_t width = 0, depth = 0;
};
VitSize vit_size(const std::vector<std::pair<std::string, std::vector<int64_t>>>& shapes);

/// The registered backbones of that size.
std::vector<std::string> backbones_of_size(const VitSize& size);

}  // namespace rep
