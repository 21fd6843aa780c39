#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "formats/named_tensors.h"
#include "nn/vit.h"

namespace rep {

struct LoadedWeights {
  /// What loading did, for the result: {"path", "sha256", "bytes"}, "shards" of an index, "notes"
  /// where there is something to say of names and parts; or {"path": "random", "warning": ...}.
  Json inputs;
  std::string normalise;  // of the pixels that the weights were trained with; "": not known
};

/// What load_weights does, part by part: what was copied is let go.
class WeightLoader {
 public:
  WeightLoader(const std::string& weights, const std::string& key, const VitOptions& options);
  /// Parameters whose names begin so, those that are not filled yet.
  void fill(VisionTransformerImpl& vit, const std::string& prefix);
  /// All others. Throws Error for tensors that have no place.
  LoadedWeights finish(VisionTransformerImpl& vit);

 private:
  const VitOptions options_;
  const std::string path_;
  LoadedWeights loaded_;
  bool from_file_ = false;
  std::map<std::string, torch::Tensor> left_;  // by timm's names
  std::map<std::string, std::string> sources_;
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes_;
  std::string hint_;
  std::set<std::string> filled_;
};

/// Fills `vit` from a file, or leaves its random initialisation when `weights` is "random".
/// Position embeddings of another grid are interpolated as vit->options.positions says. A
/// classification head in the file is ignored unless `vit` has one of that shape. A missing, extra
/// or wrongly shaped tensor is an Error naming it and the file, and so is a number that is not
/// finite.
LoadedWeights load_weights(VisionTransformer& vit, const std::string& weights,
                           const std::string& key = "");

/// pos_embed [1, tokens + n n, D] -> [1, tokens + grid grid, D], the first rows kept as they are.
torch::Tensor resample_positions(const torch::Tensor& pos_embed, int64_t grid,
                                 Positions rule = Positions::kBicubicAntialias, int64_t tokens = 1);

/// What names and shapes tell of a ViT; width 0: it is none.
struct VitLayout {
  int64_t width = 0, depth = 0, patch_size = 0, registers = 0;
  bool layer_scale = false, norm_pre = false, distilled = false, fc_norm = false;
  bool class_position = true;
  bool fits(const VitOptions& options) const;
};
VitLayout vit_layout(const std::vector<std::pair<std::string, std::vector<int64_t>>>& shapes);

/// The registered backbones of that layout.
std::vector<std::string> backbones_of_layout(const VitLayout& layout);

}  // namespace rep
