// Pre-trained weights of vision transformers, from the files in which they are published: timm's
// (safetensors, PyTorch) and Google's (.npz of the vision_transformer repository).
#include "nn/weights.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "core/error.h"
#include "core/hash.h"
#include "core/registry.h"
#include "formats/npz.h"
#include "formats/safetensors.h"
#include "formats/torch_zip.h"

namespace rep {

namespace {

bool starts_with(const std::string& text, const std::string& start) {
  return text.compare(0, start.size(), start) == 0;
}

// ---- Google's names ----

// How an array of Flax becomes a parameter of timm (timm's vision_transformer._load_weights).
struct Translation {
  const char* google;
  const char* timm;
  int64_t dimensions;  // of Google's array
  torch::Tensor (*convert)(const torch::Tensor&);
};

torch::Tensor keep(const torch::Tensor& x) { return x; }
torch::Tensor transposed(const torch::Tensor& x) { return x.t(); }                     // [in, out]
torch::Tensor convolution(const torch::Tensor& x) { return x.permute({3, 2, 0, 1}); }  // HWIO
torch::Tensor heads_in(const torch::Tensor& x) { return x.flatten(0, 1).t(); }         // [H, d, D]
torch::Tensor heads_out(const torch::Tensor& x) { return x.flatten(1).t(); }           // [D, H, d]
torch::Tensor flat(const torch::Tensor& x) { return x.flatten(); }                     // [H, d]

constexpr Translation kOutside[] = {
    {"cls", "cls_token", 3, keep},
    {"embedding/kernel", "patch_embed.proj.weight", 4, convolution},
    {"embedding/bias", "patch_embed.proj.bias", 1, keep},
    {"Transformer/posembed_input/pos_embedding", "pos_embed", 3, keep},
    {"Transformer/encoder_norm/scale", "norm.weight", 1, keep},
    {"Transformer/encoder_norm/bias", "norm.bias", 1, keep},
    {"head/kernel", "head.weight", 2, transposed},
    {"head/bias", "head.bias", 1, keep},
};

// Below "Transformer/encoderblock_N/" and "blocks.N.". The three parts of qkv are joined
// afterwards.
constexpr Translation kBlock[] = {
    {"LayerNorm_0/scale", "norm1.weight", 1, keep},
    {"LayerNorm_0/bias", "norm1.bias", 1, keep},
    {"LayerNorm_2/scale", "norm2.weight", 1, keep},
    {"LayerNorm_2/bias", "norm2.bias", 1, keep},
    {"MlpBlock_3/Dense_0/kernel", "mlp.fc1.weight", 2, transposed},
    {"MlpBlock_3/Dense_0/bias", "mlp.fc1.bias", 1, keep},
    {"MlpBlock_3/Dense_1/kernel", "mlp.fc2.weight", 2, transposed},
    {"MlpBlock_3/Dense_1/bias", "mlp.fc2.bias", 1, keep},
    {"MultiHeadDotProductAttention_1/out/kernel", "attn.proj.weight", 3, heads_in},
    {"MultiHeadDotProductAttention_1/out/bias", "attn.proj.bias", 1, keep},
    {"MultiHeadDotProductAttention_1/query/kernel", "attn.q.weight", 3, heads_out},
    {"MultiHeadDotProductAttention_1/query/bias", "attn.q.bias", 2, flat},
    {"MultiHeadDotProductAttention_1/key/kernel", "attn.k.weight", 3, heads_out},
    {"MultiHeadDotProductAttention_1/key/bias", "attn.k.bias", 2, flat},
    {"MultiHeadDotProductAttention_1/value/kernel", "attn.v.weight", 3, heads_out},
    {"MultiHeadDotProductAttention_1/value/bias", "attn.v.bias", 2, flat},
};

// The array under its new name, with `prefix` before it; false when the table does not know it.
template <size_t n>
bool translate(const Translation (&table)[n], const std::string& name, const std::string& prefix,
               const torch::Tensor& tensor, const std::string& path,
               std::map<std::string, torch::Tensor>& result) {
  for (const Translation& entry : table) {
    if (name != entry.google) continue;
    if (tensor.dim() != entry.dimensions) {
      throw Error(path + ": array '" + name + "' (" + prefix + entry.timm + ") is " +
                  describe(tensor) + ", not of " + std::to_string(entry.dimensions) +
                  " dimensions as in Google's ViT files");
    }
    result[prefix + entry.timm] = entry.convert(tensor).contiguous();
    return true;
  }
  return false;
}

// attn.{q,k,v}.{weight,bias} -> attn.qkv.{weight,bias}, rows [q | k | v].
void join_qkv(std::map<std::string, torch::Tensor>& tensors, const std::string& path) {
  const std::string query = ".attn.q.";
  std::vector<std::string> queries;
  for (const auto& [name, tensor] : tensors) {
    if (name.find(query) != std::string::npos) queries.push_back(name);
  }
  for (const std::string& name : queries) {
    const auto part = [&](const char* letter) {
      return std::string(name).replace(name.find(query), query.size(),
                                       std::string(".attn.") + letter + ".");
    };
    std::vector<torch::Tensor> parts;
    for (const char* letter : {"q", "k", "v"}) {
      const auto found = tensors.find(part(letter));
      if (found == tensors.end() || found->second.sizes() != tensors[name].sizes() ||
          found->second.scalar_type() != tensors[name].scalar_type()) {
        throw Error(path + ": the query, key and value arrays of '" + part("qkv") +
                    "' are not all there, of one shape and type: fetch the file again");
      }
      parts.push_back(found->second);
    }
    tensors[part("qkv")] = torch::cat(parts);
    for (const char* letter : {"q", "k", "v"}) tensors.erase(part(letter));
  }
}

// ---- into the model ----

using Shapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// "; the file holds a ViT of width 192 with 12 blocks: set backbone.name to vit_tiny_patch16_224",
// or nothing when its size is the model's.
std::string size_hint(const NamedTensors& tensors, const VitOptions& options) {
  Shapes shapes;
  for (const auto& [name, tensor] : tensors) shapes.emplace_back(name, tensor.sizes().vec());
  const VitSize size = vit_size(shapes);
  if (size.width == 0 || (size.width == options.embed_dim && size.depth == options.depth))
    return "";
  const auto fitting = backbones_of_size(size);
  return "; the file holds a ViT of width " + std::to_string(size.width) + " with " +
         std::to_string(size.depth) + " blocks" +
         (fitting.empty() ? std::string() : ": set backbone.name to " + fitting.front());
}

// Of DistributedDataParallel, when all names have it.
void strip_module_prefix(NamedTensors& tensors) {
  const std::string prefix = "module.";
  const bool all = std::all_of(tensors.begin(), tensors.end(), [&](const auto& item) {
    return starts_with(item.first, prefix) && item.first.size() > prefix.size();
  });
  if (!all) return;
  for (auto& item : tensors) item.first.erase(0, prefix.size());
}

// Parts of a classifier, which continual learning brings itself.
bool belongs_to_head(const std::string& name) {
  return starts_with(name, "head.") || starts_with(name, "head_drop.") ||
         starts_with(name, "pre_logits.");
}

// `from` made fit for `parameter`, or undefined when the shapes do not agree.
torch::Tensor fit(const std::string& name, const torch::Tensor& from,
                  const torch::Tensor& parameter) {
  if (from.sizes() == parameter.sizes()) return from;
  if (name != "pos_embed" || from.dim() != 3 || from.size(0) != 1 ||
      from.size(2) != parameter.size(2)) {
    return {};
  }
  const auto side = [](const torch::Tensor& x) {
    return static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(x.size(1) - 1))));
  };
  const int64_t old_grid = side(from);
  if (old_grid == 0 || old_grid * old_grid != from.size(1) - 1) return {};
  return resample_positions(from, side(parameter));
}

void copy_into(VisionTransformer& vit, const NamedTensors& tensors, const std::string& path) {
  std::map<std::string, torch::Tensor> by_name(tensors.begin(), tensors.end());
  const torch::NoGradGuard no_grad;
  for (auto& item : vit->named_parameters()) {
    const std::string& name = item.key();
    torch::Tensor& parameter = item.value();
    const auto found = by_name.find(name);
    const bool there = found != by_name.end();
    const torch::Tensor fitting = there ? fit(name, found->second, parameter) : torch::Tensor();
    if (fitting.defined() && fitting.is_floating_point()) {
      parameter.copy_(fitting);
    } else if (!belongs_to_head(name)) {
      const std::string problem =
          there ? "is " + describe(found->second) + " but must be " + describe(parameter)
                : "is missing (" + describe(parameter) + ")";
      throw Error(path + ": tensor '" + name + "' " + problem + size_hint(tensors, vit->options));
    }
    if (there) by_name.erase(found);
  }
  for (const auto& [name, tensor] : by_name) {
    if (belongs_to_head(name)) continue;
    throw Error(path + ": tensor '" + name + "' (" + describe(tensor) +
                ") has no place in the backbone" + size_hint(tensors, vit->options));
  }
}

}  // namespace

NamedTensors timm_names(const NamedTensors& google, const std::string& path) {
  const std::string block_prefix = "Transformer/encoderblock_";
  std::map<std::string, torch::Tensor> result;
  for (const auto& [full_name, tensor] : google) {
    // Checkpoints with the optimiser keep the model one level down.
    const std::string target = "opt/target/";
    const std::string name =
        starts_with(full_name, target) ? full_name.substr(target.size()) : full_name;
    if (starts_with(name, "pre_logits/") || translate(kOutside, name, "", tensor, path, result)) {
      continue;
    }
    const size_t slash = name.find('/', block_prefix.size());
    const bool in_block = starts_with(name, block_prefix) && slash != std::string::npos;
    const std::string prefix =
        in_block ? "blocks." + name.substr(block_prefix.size(), slash - block_prefix.size()) + "."
                 : "";
    if (in_block && translate(kBlock, name.substr(slash + 1), prefix, tensor, path, result))
      continue;
    result[name] = tensor;
  }
  join_qkv(result, path);
  return NamedTensors(result.begin(), result.end());
}

NamedTensors read_weights(const std::string& path) {
  std::string suffix = std::filesystem::path(path).extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (suffix == ".safetensors") return read_safetensors(path).tensors;
  if (suffix == ".npz") return timm_names(read_npz(path), path);
  if (suffix == ".pth" || suffix == ".pt" || suffix == ".bin") return read_torch_zip(path);
  throw Error(path + ": weights are read from .safetensors, .npz, .pth, .pt and .bin files only");
}

LoadedWeights load_weights(VisionTransformer& vit, const std::string& weights) {
  if (weights.empty()) {
    throw Error("backbone.weights is empty: give it a weight file, or the word random");
  }
  if (weights == "random") {
    return {
        {{"path", "random"},
         {"warning", "the backbone is not pre-trained: accuracies say nothing about the method"}}};
  }
  NamedTensors tensors = read_weights(weights);
  strip_module_prefix(tensors);
  copy_into(vit, tensors, weights);
  return {{{"path", weights},
           {"sha256", sha256_of_file(weights)},
           {"bytes", static_cast<int64_t>(std::filesystem::file_size(weights))}}};
}

torch::Tensor resample_positions(const torch::Tensor& pos_embed, int64_t grid) {
  const int64_t tokens = pos_embed.size(1) - 1, width = pos_embed.size(2);
  const auto old_grid = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(tokens))));
  const torch::Tensor image = pos_embed.narrow(1, 1, tokens)
                                  .to(torch::kFloat32)
                                  .reshape({1, old_grid, old_grid, width})
                                  .permute({0, 3, 1, 2})
                                  .contiguous();
  const torch::Tensor resized =
      at::_upsample_bicubic2d_aa(image, {grid, grid}, /*align_corners=*/false);
  return torch::cat({pos_embed.narrow(1, 0, 1).to(torch::kFloat32),
                     resized.permute({0, 2, 3, 1}).reshape({1, grid * grid, width})},
                    1);
}

VitSize vit_size(const Shapes& shapes) {
  VitSize size;
  std::set<std::string> blocks;
  const std::string prefix = "blocks.";
  for (const auto& [name, shape] : shapes) {
    if (name == "cls_token" && !shape.empty()) size.width = shape.back();
    if (starts_with(name, prefix)) {
      blocks.insert(name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size()));
    }
  }
  size.depth = static_cast<int64_t>(blocks.size());
  return size;
}

std::vector<std::string> backbones_of_size(const VitSize& size) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : Registry<VitOptions>::get().entries()) {
    if (entry.value.embed_dim == size.width && entry.value.depth == size.depth) {
      names.push_back(name);
    }
  }
  return names;
}

}  // namespace rep
