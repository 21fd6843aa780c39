// Names of Google's ViTs in Flax (.npz): the vision_transformer repository, and big_vision, whose
// modules have other numbers and whose blocks may lie stacked in one array. Layouts as timm's
// vision_transformer._load_weights reads them.
#include "nn/weight_names.h"

namespace rep {

namespace {

using layout::keep;
using layout::transposed;

torch::Tensor convolution(const torch::Tensor& x) { return x.permute({3, 2, 0, 1}); }  // HWIO
torch::Tensor heads_in(const torch::Tensor& x) { return x.flatten(0, 1).t(); }         // [H, d, D]
torch::Tensor heads_out(const torch::Tensor& x) { return x.flatten(1).t(); }           // [D, H, d]
torch::Tensor heads_bias(const torch::Tensor& x) { return x.flatten(); }               // [H, d]

constexpr char kStack[] = "Transformer/encoderblock/";  // [blocks, ...]
constexpr int64_t kMaxBlocks = 100;
constexpr size_t kMaxArrays = 100000;  // that become of stacked ones

// A module's numbers: of vision_transformer, then of big_vision.
std::vector<Renaming> google_block() {
  std::vector<Renaming> rows{{"LayerNorm_0/scale", "norm1.weight", 1, keep},
                             {"LayerNorm_0/bias", "norm1.bias", 1, keep}};
  for (const std::string norm : {"LayerNorm_2/", "LayerNorm_1/"}) {
    rows.push_back({norm + "scale", "norm2.weight", 1, keep});
    rows.push_back({norm + "bias", "norm2.bias", 1, keep});
  }
  for (const std::string mlp : {"MlpBlock_3/", "MlpBlock_0/"}) {
    for (const std::string layer : {"0", "1"}) {
      const std::string timm = layer == "0" ? "mlp.fc1." : "mlp.fc2.";
      rows.push_back({mlp + "Dense_" + layer + "/kernel", timm + "weight", 2, transposed});
      rows.push_back({mlp + "Dense_" + layer + "/bias", timm + "bias", 1, keep});
    }
  }
  for (const std::string number : {"1/", "0/"}) {
    const std::string attention = "MultiHeadDotProductAttention_" + number;
    rows.push_back({attention + "out/kernel", "attn.proj.weight", 3, heads_in});
    rows.push_back({attention + "out/bias", "attn.proj.bias", 1, keep});
    for (const std::string part : {"query", "key", "value"}) {
      const std::string timm = "attn." + part.substr(0, 1) + ".";
      rows.push_back({attention + part + "/kernel", timm + "weight", 3, heads_out});
      rows.push_back({attention + part + "/bias", timm + "bias", 2, heads_bias});
    }
  }
  return rows;
}

std::vector<NameFamily::Prepared> unstacked(const NamedTensors& tensors) {
  const std::string stack = kStack;
  std::vector<NameFamily::Prepared> result;
  for (const auto& [name, tensor] : tensors) {
    if (name.compare(0, stack.size(), stack) != 0 || tensor.dim() == 0 ||
        tensor.size(0) > kMaxBlocks || result.size() > kMaxArrays) {
      result.push_back({name, tensor, name});
      continue;
    }
    const std::string rest = "/" + name.substr(stack.size());
    for (int64_t i = 0; i < tensor.size(0); ++i) {
      result.push_back({"Transformer/encoderblock_" + std::to_string(i) + rest, tensor.select(0, i),
                        name + "[" + std::to_string(i) + "]"});
    }
  }
  return result;
}

}  // namespace

const NameFamily& google_family() {
  static const NameFamily family{
      "",
      "embedding/kernel",
      "embedding/bias",
      {{"cls", "cls_token", 3, keep},
       {"embedding/kernel", "patch_embed.proj.weight", 4, convolution},
       {"embedding/bias", "patch_embed.proj.bias", 1, keep},
       {"Transformer/posembed_input/pos_embedding", "pos_embed", 3, keep},
       {"pos_embedding", "pos_embed", 3, keep},
       {"Transformer/encoder_norm/scale", "norm.weight", 1, keep},
       {"Transformer/encoder_norm/bias", "norm.bias", 1, keep},
       {"head/kernel", "head.weight", 2, transposed},
       {"head/bias", "head.bias", 1, keep}},
      {"Transformer/encoderblock_"},
      google_block(),
      {"pre_logits/"},
      {},
      unstacked};
  return family;
}

}  // namespace rep
