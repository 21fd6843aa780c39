// Pre-trained weights of vision transformers, from the files in which they are published.
#include "nn/weights.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "core/affix.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/registry.h"
#include "formats/weight_file.h"
#include "nn/weight_names.h"

namespace rep {

namespace {

// ---- into the model ----

using Shapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// "; the file holds a ViT of width 192 with 12 blocks: set backbone.name to vit_tiny_patch16_224",
// or nothing when its layout is the model's.
std::string layout_hint(const Shapes& shapes, const VitOptions& options) {
  const VitLayout layout = vit_layout(shapes);
  if (layout.width == 0 || layout.fits(options)) return "";
  std::string with;
  for (const auto& [has, part] :
       {std::pair{layout.layer_scale, "LayerScale"}, std::pair{layout.norm_pre, "a first norm"},
        std::pair{layout.distilled, "a distillation token"},
        std::pair{layout.registers > 0, "registers"}, std::pair{layout.fc_norm, "a norm of means"},
        std::pair{!layout.class_position, "no position of [CLS]"}}) {
    if (has) with += std::string(with.empty() ? ", " : " and ") + part;
  }
  std::vector<std::string> fitting = backbones_of_layout(layout);
  if (fitting.size() > 3) fitting.resize(3);
  std::string names;
  for (const std::string& name : fitting) names += (names.empty() ? "" : " or ") + name;
  return "; the file holds a ViT of width " + std::to_string(layout.width) + " with " +
         std::to_string(layout.depth) + " blocks" + with +
         (names.empty() ? std::string() : ": set backbone.name to " + names);
}

// Parts of a classifier, which continual learning brings itself.
bool belongs_to_head(const std::string& name) {
  return begins_with(name, "head.") || begins_with(name, "head_dist.") ||
         begins_with(name, "head_drop.") || begins_with(name, "pre_logits.");
}

// The side of a square grid of that many patches, 0 when there is none.
int64_t grid_of(int64_t patches) {
  const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(patches))));
  return patches > 0 && side * side == patches ? side : 0;
}

// Positions [1, rows, D] made fit for the model's, or undefined when they have no such grid.
torch::Tensor fit_positions(torch::Tensor from, const torch::Tensor& parameter,
                            const VitOptions& options) {
  if (from.dim() != 3 || from.size(0) != 1 || from.size(2) != parameter.size(2)) return {};
  const int64_t tokens = options.position_tokens();
  if (options.registers > 0 && grid_of(from.size(1)) > 0) {
    // timm's: the position of [CLS] is added to it, and has no row.
    from = torch::cat({torch::zeros_like(from.narrow(1, 0, tokens)), from}, 1);
  }
  if (from.size(1) <= tokens || grid_of(from.size(1) - tokens) == 0) return {};
  return resample_positions(from, options.grid(), options.positions, tokens);
}

// `from` made fit for `parameter`, or undefined when the shapes do not agree.
torch::Tensor fit(const std::string& name, const torch::Tensor& from,
                  const torch::Tensor& parameter, const VitOptions& options) {
  if (from.sizes() == parameter.sizes()) return from;
  return name == "pos_embed" ? fit_positions(from, parameter, options) : torch::Tensor();
}

// Copies what a file holds, so that a number that is none names the tensor in which it was found.
void copy_finite(torch::Tensor& parameter, const torch::Tensor& from, const std::string& source,
                 const std::string& path) {
  parameter.copy_(from);
  const int64_t bad = parameter.numel() - parameter.isfinite().sum().item<int64_t>();
  if (bad == 0) return;
  throw Error(
      path + ": tensor '" + source + "' has " + std::to_string(bad) + " of " +
      std::to_string(parameter.numel()) +
      " numbers that are not finite (NaN or infinite): the training that wrote it broke, or "
      "the file is damaged; take another checkpoint");
}

// {"path", "sha256", "bytes"}, and of an index's shards each one's sha256.
Json describe_files(const std::vector<std::string>& files) {
  int64_t bytes = 0;
  for (const std::string& file : files) {
    bytes += static_cast<int64_t>(std::filesystem::file_size(file));
  }
  std::vector<std::string> digests;
  const std::string digest = digest_of_weight_files(files, &digests);
  Json json{{"path", files.front()}, {"sha256", digest}, {"bytes", bytes}};
  for (size_t i = 1; i < files.size(); ++i) {
    json["shards"][std::filesystem::path(files[i]).filename().string()] = digests[i];
  }
  return json;
}

// Of a file that rep pretrain wrote: its configuration is in the metadata.
std::string normalisation_in_metadata(const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find("pretraining");
  if (found == metadata.end()) return "";
  const Json json = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  const auto text = Json::json_pointer("/backbone/normalise");
  return json.is_object() && json.contains(text) && json[text].is_string()
             ? json[text].get<std::string>()
             : "";
}

// What the pixels were that the weights were trained with, as far as file and name tell.
std::string wanted_normalisation(const VitOptions& options, const WeightFile& file,
                                 const std::string& weights) {
  const std::string own = normalisation_in_metadata(file.metadata);
  if (!own.empty()) return own;
  if (!options.normalise.empty()) return options.normalise;
  const auto holds = [&](const std::string& array) {
    return std::any_of(file.tensors.begin(), file.tensors.end(),
                       [&](const auto& item) { return ends_with(item.first, array); });
  };
  if (holds("embedding/kernel")) return "half";  // Google's, all of them
  std::string name = std::filesystem::path(weights).filename().string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::pair<const char*, const char*> kNames[] = {
      {"augreg", "half"},   {"orig_in21k", "half"}, {"deit", "imagenet"}, {"dino", "imagenet"},
      {"ibot", "imagenet"}, {"mae", "imagenet"},    {"clip", "clip"}};
  for (const auto& [word, normalise] : kNames) {
    if (name.find(word) != std::string::npos) return normalise;
  }
  return "";
}

}  // namespace

WeightLoader::WeightLoader(const std::string& weights, const std::string& key,
                           const VitOptions& options)
    : options_(options), path_(weights) {
  if (weights.empty()) {
    throw Error("backbone.weights is empty: give it a weight file, or the word random");
  }
  if (weights == "random") {
    loaded_.inputs = {
        {"path", "random"},
        {"warning", "the backbone is not pre-trained: accuracies say nothing about the method"}};
    return;
  }
  const WeightFile file = read_weight_file(weights, key);
  TimmTensors named = to_timm_names(file.tensors, weights);
  loaded_ = {describe_files(file.files), wanted_normalisation(options, file, weights)};
  if (!file.note.empty()) loaded_.inputs["notes"].push_back(file.note);
  for (const std::string& note : named.notes) loaded_.inputs["notes"].push_back(note);
  for (const auto& [name, tensor] : named.tensors) {
    shapes_.emplace_back(name, tensor.sizes().vec());
  }
  sources_ = std::move(named.sources);
  hint_ = std::move(named.hint);
  from_file_ = true;
  for (auto& [name, tensor] : named.tensors) left_.emplace(name, std::move(tensor));
}

void WeightLoader::fill(VisionTransformerImpl& vit, const std::string& prefix) {
  if (!from_file_) return;
  const torch::NoGradGuard no_grad;
  for (auto& item : vit.named_parameters()) {
    const std::string& name = item.key();
    if (!begins_with(name, prefix) || !filled_.insert(name).second) continue;
    torch::Tensor& parameter = item.value();
    const auto found = left_.find(name);
    const bool there = found != left_.end();
    const torch::Tensor fitting =
        there ? fit(name, found->second, parameter, options_) : torch::Tensor();
    if (fitting.defined() && fitting.is_floating_point()) {
      copy_finite(parameter, fitting, sources_.at(name), path_);
    } else if (!belongs_to_head(name)) {
      const std::string problem =
          there ? "is " + describe(found->second) + " but must be " + describe(parameter)
                : "is missing (" + describe(parameter) + ")" + hint_;
      throw Error(path_ + ": tensor '" + name + "' " + problem + layout_hint(shapes_, options_));
    }
    if (there) left_.erase(found);
  }
}

LoadedWeights WeightLoader::finish(VisionTransformerImpl& vit) {
  fill(vit, "");
  for (const auto& [name, tensor] : left_) {
    if (belongs_to_head(name)) continue;
    throw Error(path_ + ": tensor '" + sources_.at(name) + "' (" + describe(tensor) +
                ") has no place in the backbone" + layout_hint(shapes_, options_));
  }
  left_.clear();
  return std::move(loaded_);
}

LoadedWeights load_weights(VisionTransformer& vit, const std::string& weights,
                           const std::string& key) {
  return WeightLoader(weights, key, vit->options).finish(*vit);
}

torch::Tensor resample_positions(const torch::Tensor& pos_embed, int64_t grid, Positions rule,
                                 int64_t tokens) {
  const int64_t patches = pos_embed.size(1) - tokens, width = pos_embed.size(2);
  const int64_t old_grid = grid_of(patches);
  TORCH_CHECK(old_grid > 0, patches, " positions are not a square");
  const torch::Tensor floats = pos_embed.to(torch::kFloat32);
  if (old_grid == grid) return floats;
  const torch::Tensor image = floats.narrow(1, tokens, patches)
                                  .reshape({1, old_grid, old_grid, width})
                                  .permute({0, 3, 1, 2})
                                  .contiguous();
  torch::Tensor resized;
  if (rule == Positions::kBicubicAntialias) {
    resized = at::_upsample_bicubic2d_aa(image, {grid, grid}, /*align_corners=*/false);
  } else {
    // The kernel's step is 1 / scale, whatever the size of what comes out.
    const double offset = rule == Positions::kBicubicOffset ? 0.1 : 0.0;
    const double scale = (static_cast<double>(grid) + offset) / static_cast<double>(old_grid);
    resized = at::upsample_bicubic2d(image, {grid, grid}, /*align_corners=*/false, scale, scale);
  }
  return torch::cat(
      {floats.narrow(1, 0, tokens), resized.permute({0, 2, 3, 1}).reshape({1, grid * grid, width})},
      1);
}

VitLayout vit_layout(const Shapes& shapes) {
  VitLayout layout;
  std::set<std::string> blocks;
  const std::string prefix = "blocks.";
  for (const auto& [name, shape] : shapes) {
    if (name == "cls_token" && !shape.empty()) layout.width = shape.back();
    if (name == "patch_embed.proj.weight" && !shape.empty()) layout.patch_size = shape.back();
    if (name == "reg_token" && shape.size() == 3) layout.registers = shape[1];
    layout.layer_scale |= name == "blocks.0.ls1.gamma";
    layout.norm_pre |= name == "norm_pre.weight";
    layout.distilled |= name == "dist_token";
    layout.fc_norm |= name == "fc_norm.weight";
    if (name == "pos_embed" && shape.size() == 3) layout.class_position = grid_of(shape[1]) == 0;
    if (begins_with(name, prefix)) {
      blocks.insert(name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size()));
    }
  }
  if (layout.registers > 0) layout.class_position = true;  // added to [CLS], or not: the same
  layout.depth = static_cast<int64_t>(blocks.size());
  return layout;
}

bool VitLayout::fits(const VitOptions& options) const {
  return options.embed_dim == width && options.depth == depth &&
         (patch_size == 0 || options.patch_size == patch_size) &&
         options.layer_scale == layer_scale && options.norm_pre == norm_pre &&
         options.distilled == distilled && options.fc_norm == fc_norm &&
         options.class_position == class_position && options.registers == registers;
}

std::vector<std::string> backbones_of_layout(const VitLayout& layout) {
  std::vector<std::string> general, trained;  // a name that says nothing of the training first
  for (const auto& [name, entry] : Registry<VitOptions>::get().entries()) {
    if (layout.fits(entry.value)) {
      (entry.value.normalise.empty() ? general : trained).push_back(name);
    }
  }
  general.insert(general.end(), trained.begin(), trained.end());
  return general;
}

}  // namespace rep
