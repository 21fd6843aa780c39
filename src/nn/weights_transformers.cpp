// transformers' names of ViT, DeiT, DINO's and MAE's ViTs, and DINOv2: of its files, which have
// four names of old, and of the modules of its version 5.
#include "nn/weight_names.h"

namespace rep {

namespace {

using layout::keep;

void add_layer(std::vector<Renaming>& rows, const std::string& theirs, const std::string& timm) {
  rows.push_back({theirs + ".weight", timm + ".weight", 2, keep});
  rows.push_back({theirs + ".bias", timm + ".bias", 1, keep});
}

void add_norm(std::vector<Renaming>& rows, const std::string& theirs, const std::string& timm) {
  rows.push_back({theirs + ".weight", timm + ".weight", 1, keep});
  rows.push_back({theirs + ".bias", timm + ".bias", 1, keep});
}

std::vector<Renaming> transformers_block() {
  std::vector<Renaming> rows;
  add_norm(rows, "layernorm_before", "norm1");
  add_norm(rows, "layernorm_after", "norm2");
  for (const std::string part : {"query", "key", "value"}) {
    const std::string letter = part.substr(0, 1);
    add_layer(rows, "attention.attention." + part, "attn." + letter);
    add_layer(rows, "attention." + letter + "_proj", "attn." + letter);
  }
  add_layer(rows, "attention.output.dense", "attn.proj");
  add_layer(rows, "attention.o_proj", "attn.proj");
  add_layer(rows, "intermediate.dense", "mlp.fc1");
  add_layer(rows, "output.dense", "mlp.fc2");
  // DINOv2's norm1, norm2, mlp.fc1 and mlp.fc2 have timm's names.
  rows.push_back({"layer_scale1.lambda1", "ls1.gamma", 1, keep});
  rows.push_back({"layer_scale2.lambda1", "ls2.gamma", 1, keep});
  for (const char* norm : {"norm1", "norm2"}) add_norm(rows, norm, norm);
  for (const char* layer : {"mlp.fc1", "mlp.fc2"}) add_layer(rows, layer, layer);
  return rows;
}

std::vector<Renaming> transformers_clip_block() {
  std::vector<Renaming> rows;
  add_norm(rows, "layer_norm1", "norm1");
  add_norm(rows, "layer_norm2", "norm2");
  for (const std::string letter : {"q", "k", "v"}) {
    add_layer(rows, "self_attn." + letter + "_proj", "attn." + letter);
  }
  add_layer(rows, "self_attn.out_proj", "attn.proj");
  for (const char* layer : {"mlp.fc1", "mlp.fc2"}) add_layer(rows, layer, layer);
  return rows;
}

std::vector<Renaming> transformers_clip_outside() {
  std::vector<Renaming> rows{
      {"embeddings.class_embedding", "cls_token", 1, layout::as_token},
      {"embeddings.position_embedding.weight", "pos_embed", 2, layout::as_positions},
      {"embeddings.patch_embedding.weight", "patch_embed.proj.weight", 4, keep}};
  add_norm(rows, "pre_layrnorm", "norm_pre");  // spelled so
  add_norm(rows, "post_layernorm", "norm");
  return rows;
}

}  // namespace

const NameFamily& transformers_family() {
  static const NameFamily family{
      "transformers' ViT",
      "embeddings.patch_embeddings.projection.weight",
      "embeddings.cls_token",
      {{"embeddings.cls_token", "cls_token", 3, keep},
       {"embeddings.distillation_token", "dist_token", 3, keep},
       {"embeddings.register_tokens", "reg_token", 3, keep},
       {"embeddings.position_embeddings", "pos_embed", 3, keep},
       {"embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight", 4, keep},
       {"embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias", 1, keep},
       {"layernorm.weight", "norm.weight", 1, keep},
       {"layernorm.bias", "norm.bias", 1, keep}},
      {"encoder.layer.", "layers."},
      transformers_block(),
      {"embeddings.mask_token", "pooler."},
      {},
      nullptr};
  return family;
}

const NameFamily& transformers_clip_family() {
  static const NameFamily family{"transformers' CLIP",
                                 "embeddings.patch_embedding.weight",
                                 "embeddings.class_embedding",
                                 transformers_clip_outside(),
                                 {"encoder.layers."},
                                 transformers_clip_block(),
                                 {"embeddings.position_ids"},
                                 {{"visual_projection.weight", "head.weight", 2, keep}},
                                 nullptr};
  return family;
}

}  // namespace rep
