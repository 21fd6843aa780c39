// The registered vision transformers: a line each where only sizes differ, and what each family
// adds to the plain ViT, from its authors' code. Weights of a size come in many trainings: a name
// says what the file cannot (activation, epsilon, how positions are resampled, what pixels were).
#include <utility>

#include "core/error.h"
#include "nn/vit.h"
#include "nn/weights.h"
#include "tensor/resident.h"

namespace rep {

namespace {

// Width, depth, heads.
constexpr int64_t kNano[] = {96, 6, 3}, kTi[] = {192, 12, 3}, kS[] = {384, 12, 6},
                  kB[] = {768, 12, 12}, kL[] = {1024, 24, 16};

VitOptions plain(const int64_t (&size)[3], int64_t patch_size = 16, int64_t image_size = 224) {
  VitOptions options;
  options.image_size = image_size;
  options.patch_size = patch_size;
  options.embed_dim = size[0];
  options.depth = size[1];
  options.num_heads = size[2];
  return options;
}

// facebookresearch/deit 7e160fe, and mae's util/pos_embed.py.
VitOptions deit(const int64_t (&size)[3]) {
  VitOptions options = plain(size);
  options.normalise = "imagenet";
  options.positions = Positions::kBicubic;
  return options;
}

VitOptions distilled(const int64_t (&size)[3]) {
  VitOptions options = deit(size);
  options.distilled = true;
  return options;
}

// models_v2.py.
VitOptions deit3(const int64_t (&size)[3]) {
  VitOptions options = deit(size);
  options.layer_scale = true;
  options.class_position = false;
  return options;
}

// Fine-tuned: the mean of the patches is normed, and not [CLS].
VitOptions fine_tuned_mae(const int64_t (&size)[3]) {
  VitOptions options = deit(size);
  options.fc_norm = true;
  options.feature = Feature::kPatches;
  return options;
}

// facebookresearch/dino 7c446df, bytedance/ibot da316d8.
VitOptions dino(const int64_t (&size)[3], int64_t patch_size = 16) {
  VitOptions options = plain(size, patch_size);
  options.normalise = "imagenet";
  options.positions = Positions::kBicubicOffset;
  return options;
}

// facebookresearch/dinov2 b8931f7, hub/backbones.py. Trained at 518 pixels: positions of 37 x 37
// patches are resampled.
VitOptions dinov2(const int64_t (&size)[3]) {
  VitOptions options = dino(size, 14);
  options.layer_scale = true;
  return options;
}

VitOptions dinov2_registers(const int64_t (&size)[3]) {
  VitOptions options = dinov2(size);
  options.registers = 4;
  options.positions = Positions::kBicubicAntialias;
  return options;
}

// mlfoundations/open_clip 89fb801: LAION's and DataComp's weights.
VitOptions clip(const int64_t (&size)[3], int64_t patch_size) {
  VitOptions options = plain(size, patch_size);
  options.layer_norm_eps = 1e-5;
  options.norm_pre = true;
  options.patch_bias = false;
  options.normalise = "clip";
  return options;
}

// openai/CLIP d05afc4.
VitOptions openai_clip(const int64_t (&size)[3], int64_t patch_size) {
  VitOptions options = clip(size, patch_size);
  options.gelu = Gelu::kQuick;
  return options;
}

const Registered<VitOptions> kBackbones[] = {
    {"vit_nano", "a small ViT/4 for 32-pixel images, for tests and the offline default",
     plain(kNano, /*patch_size=*/4, /*image_size=*/32)},
    {"vit_tiny_patch16_224", "ViT-Ti/16 (Touvron 2012.12877; Steiner 2106.10270)", plain(kTi)},
    {"vit_small_patch16_224", "ViT-S/16 (Touvron 2012.12877; Steiner 2106.10270)", plain(kS)},
    {"vit_base_patch16_224", "ViT-B/16 (Dosovitskiy 2010.11929)", plain(kB)},
    {"vit_large_patch16_224", "ViT-L/16 (Dosovitskiy 2010.11929)", plain(kL)},
    {"vit_small_patch32_224", "ViT-S/32 (Steiner 2106.10270)", plain(kS, 32)},
    {"vit_base_patch32_224", "ViT-B/32 (Dosovitskiy 2010.11929)", plain(kB, 32)},
    {"vit_small_patch16_384", "ViT-S/16 of 384 pixels (Steiner 2106.10270)", plain(kS, 16, 384)},

    {"deit_tiny_patch16_224", "DeiT-Ti/16 (Touvron 2012.12877)", deit(kTi)},
    {"deit_small_patch16_224", "DeiT-S/16 (Touvron 2012.12877)", deit(kS)},
    {"deit_base_patch16_224", "DeiT-B/16 (Touvron 2012.12877)", deit(kB)},
    {"deit_tiny_distilled_patch16_224", "DeiT-Ti/16 with a distillation token (Touvron 2012.12877)",
     distilled(kTi)},
    {"deit_small_distilled_patch16_224", "DeiT-S/16 with a distillation token (Touvron 2012.12877)",
     distilled(kS)},
    {"deit_base_distilled_patch16_224", "DeiT-B/16 with a distillation token (Touvron 2012.12877)",
     distilled(kB)},
    {"deit3_small_patch16_224",
     "DeiT III S/16 (Touvron 2204.07118): LayerScale, no position of [CLS]", deit3(kS)},
    {"deit3_base_patch16_224",
     "DeiT III B/16 (Touvron 2204.07118): LayerScale, no position of [CLS]", deit3(kB)},
    {"vit_base_patch16_mae", "MAE B/16 (He 2111.06377), pre-trained on ImageNet-1k without labels",
     deit(kB)},
    {"vit_base_patch16_mae_ft",
     "MAE B/16 fine-tuned on ImageNet-1k (He 2111.06377): the mean of its patches",
     fine_tuned_mae(kB)},

    {"vit_small_patch16_dino", "DINO S/16 (Caron 2104.14294), ImageNet-1k without labels",
     dino(kS)},
    {"vit_base_patch16_dino", "DINO B/16 (Caron 2104.14294), ImageNet-1k without labels", dino(kB)},
    {"vit_small_patch16_ibot", "iBOT S/16 (Zhou 2111.07832), ImageNet without labels", dino(kS)},
    {"vit_base_patch16_ibot", "iBOT B/16 (Zhou 2111.07832), ImageNet without labels", dino(kB)},
    {"vit_small_patch14_dinov2", "DINOv2 S/14 (Oquab 2304.07193): LayerScale", dinov2(kS)},
    {"vit_base_patch14_dinov2", "DINOv2 B/14 (Oquab 2304.07193): LayerScale", dinov2(kB)},
    {"vit_large_patch14_dinov2", "DINOv2 L/14 (Oquab 2304.07193): LayerScale", dinov2(kL)},
    {"vit_small_patch14_reg4_dinov2", "DINOv2 S/14 with 4 registers (Darcet 2309.16588)",
     dinov2_registers(kS)},
    {"vit_base_patch14_reg4_dinov2", "DINOv2 B/14 with 4 registers (Darcet 2309.16588)",
     dinov2_registers(kB)},
    {"vit_large_patch14_reg4_dinov2", "DINOv2 L/14 with 4 registers (Darcet 2309.16588)",
     dinov2_registers(kL)},

    {"vit_base_patch32_clip_quickgelu_224", "CLIP B/32, OpenAI's image tower (Radford 2103.00020)",
     openai_clip(kB, 32)},
    {"vit_base_patch16_clip_quickgelu_224", "CLIP B/16, OpenAI's image tower (Radford 2103.00020)",
     openai_clip(kB, 16)},
    {"vit_large_patch14_clip_quickgelu_224", "CLIP L/14, OpenAI's image tower (Radford 2103.00020)",
     openai_clip(kL, 14)},
    {"vit_base_patch32_clip_224",
     "CLIP B/32, LAION's or DataComp's image tower (Cherti 2212.07143): exact GELU", clip(kB, 32)},
    {"vit_base_patch16_clip_224",
     "CLIP B/16, LAION's or DataComp's image tower (Cherti 2212.07143): exact GELU", clip(kB, 16)},
    {"vit_large_patch14_clip_224",
     "CLIP L/14, LAION's or DataComp's image tower (Cherti 2212.07143): exact GELU", clip(kL, 14)},
};

VitOptions vit_options_of(const BackboneConfig& config) {
  VitOptions options = vit_options(config.name, config.image_size, config.patch_size);
  if (config.positions == "bicubic") options.positions = Positions::kBicubic;
  if (config.positions == "bicubic_offset") options.positions = Positions::kBicubicOffset;
  if (config.positions == "bicubic_antialias") options.positions = Positions::kBicubicAntialias;
  if (config.feature == "class") options.feature = Feature::kClass;
  if (config.feature == "patches") options.feature = Feature::kPatches;
  if (config.feature == "class_and_distillation") {
    options.feature = Feature::kClassAndDistillation;
    if (!options.distilled) {
      throw Error("backbone.feature: " + config.name +
                  " has no distillation token; take class or patches");
    }
  }
  if (options.fc_norm && options.feature != Feature::kPatches) {
    throw Error("backbone.feature: " + config.name +
                " norms the mean of its patches and no token; take patches");
  }
  return options;
}

// Of weights that were trained with other pixels than they get: published protocols may have it so.
std::string pixels_hint(const std::string& wanted, const std::string& given) {
  return "trained with pixels of normalise: " + wanted + ", gets those of normalise: " + given +
         "; set backbone.normalise=" + wanted +
         ", unless a published protocol has it so (L2P's and its followers': none)";
}

const Registered<BackboneFamily> kVits{
    "vit",
    "",
    {members_of<VitOptions>,
     [](const BackboneConfig& config) { return vit_options_of(config).depth; },
     [](const BackboneConfig& config) { return vit_options_of(config).image_size; },
     [](const BackboneConfig& config, Json* inputs, bool in_bf16) -> std::shared_ptr<Backbone> {
       return make_vit(config, inputs, in_bf16).ptr();
     },
     /*has_tokens=*/true}};

}  // namespace

VisionTransformer make_vit(const BackboneConfig& config, Json* inputs, bool in_bf16) {
  const VitOptions options = vit_options_of(config);
  WeightLoader loader(config.weights, config.weights_key, options);
  // No more than one block is there in fp32.
  const VisionTransformerImpl::Drawn halve = [&](VisionTransformerImpl& made, int64_t block) {
    loader.fill(made, "blocks." + std::to_string(block) + ".");
    for (auto& p : made.blocks[static_cast<size_t>(block)]->parameters())
      p.set_requires_grad(false);
    made.blocks[static_cast<size_t>(block)]->multiply_in_bf16();
    release_freed_heap();
  };
  VisionTransformer vit(options, in_bf16 ? halve : VisionTransformerImpl::Drawn());
  LoadedWeights loaded = loader.finish(*vit);
  *inputs = std::move(loaded.inputs);
  if (!loaded.normalise.empty() && loaded.normalise != config.normalise) {
    (*inputs)["hint"] = pixels_hint(loaded.normalise, config.normalise);
  }
  vit->train_last_blocks(trainable_blocks(config, options.depth));
  vit->recompute_mlps(config.recompute);
  vit->recompute_blocks(config.recompute_blocks);
  return vit;
}

VitOptions vit_options(const std::string& name, int64_t image_size, int64_t patch_size) {
  VitOptions options = Registry<VitOptions>::get().at(name).value;
  if (image_size > 0) options.image_size = image_size;
  if (patch_size > 0) options.patch_size = patch_size;
  if (options.image_size % options.patch_size != 0 || options.image_size > 4096) {
    throw Error("backbone: image_size " + std::to_string(options.image_size) +
                " must be a multiple of patch_size " + std::to_string(options.patch_size) +
                " and at most 4096");
  }
  return options;
}

}  // namespace rep
