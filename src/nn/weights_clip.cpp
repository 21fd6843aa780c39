// Names of CLIP's image tower as OpenAI's code and open_clip have them (clip/model.py,
// open_clip/transformer.py); what timm's _convert_openai_clip makes of them.
#include "nn/weight_names.h"

namespace rep {

namespace {

using layout::keep;

}  // namespace

const NameFamily& clip_family() {
  static const NameFamily family{"OpenAI's CLIP",
                                 "conv1.weight",
                                 "class_embedding",
                                 {{"class_embedding", "cls_token", 1, layout::as_token},
                                  {"positional_embedding", "pos_embed", 2, layout::as_positions},
                                  {"conv1.weight", "patch_embed.proj.weight", 4, keep},
                                  {"ln_pre.weight", "norm_pre.weight", 1, keep},
                                  {"ln_pre.bias", "norm_pre.bias", 1, keep},
                                  {"ln_post.weight", "norm.weight", 1, keep},
                                  {"ln_post.bias", "norm.bias", 1, keep},
                                  {"proj", "head.weight", 2, layout::transposed}},  // y = x proj
                                 {"transformer.resblocks."},
                                 {{"ln_1.weight", "norm1.weight", 1, keep},
                                  {"ln_1.bias", "norm1.bias", 1, keep},
                                  {"attn.in_proj_weight", "attn.qkv.weight", 2, keep},
                                  {"attn.in_proj_bias", "attn.qkv.bias", 1, keep},
                                  {"attn.out_proj.weight", "attn.proj.weight", 2, keep},
                                  {"attn.out_proj.bias", "attn.proj.bias", 1, keep},
                                  {"ls_1.gamma", "ls1.gamma", 1, keep},
                                  {"ln_2.weight", "norm2.weight", 1, keep},
                                  {"ln_2.bias", "norm2.bias", 1, keep},
                                  {"mlp.c_fc.weight", "mlp.fc1.weight", 2, keep},
                                  {"mlp.c_fc.bias", "mlp.fc1.bias", 1, keep},
                                  {"mlp.c_proj.weight", "mlp.fc2.weight", 2, keep},
                                  {"mlp.c_proj.bias", "mlp.fc2.bias", 1, keep},
                                  {"ls_2.gamma", "ls2.gamma", 1, keep}},
                                 {},
                                 {},
                                 nullptr};
  return family;
}

}  // namespace rep
