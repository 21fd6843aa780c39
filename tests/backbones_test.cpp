// Backbones beyond the plain ViT against their authors' code: tiny ones of every family, loaded
// from files with the family's own names (tests/golden/backbones.json), the same of other seeds by
// timm and transformers (tests/fixtures/make_backbones.py), and a real ViT-Ti in other layouts.
#include <fstream>

#include "formats/safetensors.h"
#include "nn/reference_vit.h"
#include "nn/vit.h"
#include "nn/weights.h"
#include "tests/golden_vit.h"
#include "tests/weight_files.h"

namespace rep {
namespace {

using nlohmann::json;
using torch::Tensor;

constexpr double kClipElement = 5e-6;  // an epsilon of 1e-6 for 1e-5 moves it by 2.7e-5

class BackbonesTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::ifstream stream(REP_SOURCE_DIR "/tests/" + std::string(GetParam()));
    file = json::parse(stream);
    // Another set of numbers has all seeds moved by the same.
    moved = file["params"]["dinov2"][0][2].get<uint32_t>() - 9000;
    const Tensor squares =
        golden::u(1001 + moved, {4, 3, 14, 14}).repeat_interleave(16, 2).repeat_interleave(16, 3);
    images = 0.5 * golden::u(1000 + moved, {4, 3, 224, 224}) + 0.5 * squares;
  }

  /// The family's tensors in a file, under its own names.
  std::string weights(const std::string& family) const {
    NamedTensors tensors;
    for (const json& line : file["params"][family]) {
      tensors.emplace_back(line[0].get<std::string>(),
                           golden::u(line[2], line[1], line[3], line[4]));
    }
    const std::string path = ::testing::TempDir() + "/rep_backbones_" + family + ".safetensors";
    write_safetensors(path, tensors);
    return path;
  }
  Tensor tensor(const std::string& family, const std::string& name) const {
    for (const json& line : file["params"][family]) {
      if (line[0] == name) return golden::u(line[2], line[1], line[3], line[4]);
    }
    throw std::out_of_range(name);
  }

  /// A registered backbone, but of the reference's size.
  static VitOptions tiny(const std::string& backbone) {
    VitOptions options = vit_options(backbone);
    options.embed_dim = 32;
    options.depth = 2;
    options.num_heads = 2;
    return options;
  }
  VisionTransformer load(const std::string& family, const VitOptions& options) const {
    VisionTransformer vit(options);
    load_weights(vit, weights(family));
    vit->train_last_blocks(0);
    return vit;
  }

  static void expect_rows(const Tensor& actual, const json& rows, const std::string& what,
                          double tolerance = golden::kElement) {
    ASSERT_FALSE(rows.empty()) << what;
    for (size_t b = 0; b < rows.size(); ++b) {
      golden::expect_elements(actual[static_cast<int64_t>(b)], rows[b],
                              what + " of image " + std::to_string(b), tolerance);
    }
  }
  const json& of(const std::string& family) const { return file[family]["f32"]; }

  const torch::NoGradGuard no_grad;
  json file;
  uint32_t moved = 0;
  Tensor images;
};

TEST_P(BackbonesTest, DinoV2HasItsAuthorsFeatures) {
  VitOptions options = tiny("vit_small_patch14_dinov2");
  expect_rows(load("dinov2", options)->features(images), of("dinov2")["cls_feature"], "[CLS]");
  options.feature = Feature::kPatches;
  expect_rows(load("dinov2", options)->features(images), of("dinov2")["patch_mean"], "patches");
}

TEST_P(BackbonesTest, PositionsAreResampledByTheRuleThatIsAskedFor) {
  const json& rules = of("dinov2")["same_weights_other_rules"];
  VitOptions options = tiny("vit_small_patch14_dinov2");
  for (const auto& [name, rule] : {std::pair{"bicubic", Positions::kBicubic},
                                   std::pair{"bicubic_offset", Positions::kBicubicOffset},
                                   std::pair{"bicubic_antialias", Positions::kBicubicAntialias}}) {
    options.positions = rule;
    golden::expect_elements(load("dinov2", options)->features(images)[0],
                            rules[name]["cls_feature_image0_first8"], name);
  }
}

TEST_P(BackbonesTest, RegistersStandBesideThePatches) {
  VitOptions options = tiny("vit_small_patch14_reg4_dinov2");
  const json& expected = of("dinov2_reg4");
  VisionTransformer vit = load("dinov2_reg4", options);
  expect_rows(vit->features(images), expected["cls_feature"], "[CLS]");
  expect_rows(vit->forward(images, {}).select(1, 1), expected["register_0"], "register 0");
  options.feature = Feature::kPatches;
  expect_rows(load("dinov2_reg4", options)->features(images), expected["patch_mean"], "patches");
}

TEST_P(BackbonesTest, RegistersFromTimmsFilesAreTheSame) {
  // timm adds the position of [CLS] to it and leaves its row out.
  NamedTensors timm;
  const Tensor positions = tensor("dinov2_reg4", "pos_embed");
  for (const json& line : file["params"]["dinov2_reg4"]) {
    const std::string name = line[0];
    if (name == "mask_token") continue;
    Tensor value = tensor("dinov2_reg4", name);
    if (name == "pos_embed") value = positions.narrow(1, 1, positions.size(1) - 1).contiguous();
    if (name == "cls_token") value = value + positions.narrow(1, 0, 1);
    timm.emplace_back(name == "register_tokens" ? "reg_token" : name, value);
  }
  const std::string path = ::testing::TempDir() + "/rep_backbones_reg4_timm.safetensors";
  write_safetensors(path, timm);
  VisionTransformer vit(tiny("vit_small_patch14_reg4_dinov2"));
  load_weights(vit, path);
  expect_rows(vit->features(images), of("dinov2_reg4")["cls_feature"], "[CLS]");
}

TEST_P(BackbonesTest, ClipHasEitherGeluAndItsProjection) {
  for (const auto& [kind, backbone] :
       {std::pair{"clip_quick_gelu", "vit_base_patch16_clip_quickgelu_224"},
        std::pair{"clip_gelu", "vit_base_patch16_clip_224"}}) {
    VitOptions options = tiny(backbone);
    options.num_classes = 16;  // the head takes the projection
    VisionTransformer vit = load("clip", options);
    const Tensor feature = vit->features(images);
    expect_rows(feature, of(kind)["before_projection"], kind, kClipElement);
    expect_rows(vit->head(feature), of(kind)["projected"], kind, kClipElement);
  }
}

TEST_P(BackbonesTest, DistilledDeitHasTwoTokens) {
  VitOptions options = tiny("deit_small_distilled_patch16_224");
  const json& expected = of("deit_distilled");
  VisionTransformer vit = load("deit_distilled", options);
  expect_rows(vit->features(images), expected["cls_feature"], "[CLS]");
  const Tensor tokens = vit->forward(images, {});
  expect_rows(tokens.select(1, 1), expected["dist_feature"], "the distillation token");
  const auto head = [&](const std::string& name, int64_t token) {
    return torch::linear(tokens.select(1, token), tensor("deit_distilled", name + ".weight"),
                         tensor("deit_distilled", name + ".bias"));
  };
  expect_rows((head("head", 0) + head("head_dist", 1)) / 2, expected["logits_mean_of_both_heads"],
              "logits");
  options.feature = Feature::kClassAndDistillation;
  expect_rows(load("deit_distilled", options)->features(images),
              expected["pre_logits_mean_of_both"], "the mean of both");
}

TEST_P(BackbonesTest, DeitThreeHasNoPositionOfItsClassToken) {
  VitOptions options = tiny("deit3_small_patch16_224");
  const json& expected = of("deit3_no_embed_class");
  expect_rows(load("deit3_no_embed_class", options)->features(images), expected["cls_feature"],
              "[CLS]");
  options.feature = Feature::kPatches;
  expect_rows(load("deit3_no_embed_class", options)->features(images), expected["patch_mean"],
              "patches");
}

TEST_P(BackbonesTest, AFineTunedMaeNormsTheMeanOfItsPatches) {
  expect_rows(load("mae_fc_norm", tiny("vit_base_patch16_mae_ft"))->features(images),
              of("mae_fc_norm")["pooled_feature"], "pooled");
}

TEST_P(BackbonesTest, PreLogitsAreLeftOut) {
  expect_rows(load("pre_logits", tiny("vit_base_patch16_224"))->features(images),
              of("pre_logits")["cls_feature"], "[CLS]");
}

TEST_P(BackbonesTest, ResampledPositionsMatchElementByElement) {
  for (const auto& [sizes, rules] : file["position_resize"]["f32"].items()) {
    const int64_t from = std::stoi(sizes), to = std::stoi(sizes.substr(sizes.rfind('_') + 1));
    const Tensor input = golden::u(9900 + moved + static_cast<uint32_t>(from), {1, from * from, 4});
    for (const auto& [name, rule] :
         {std::pair{"bicubic", Positions::kBicubic},
          std::pair{"bicubic_offset", Positions::kBicubicOffset},
          std::pair{"bicubic_antialias", Positions::kBicubicAntialias}}) {
      const Tensor out = resample_positions(input, to, rule, /*tokens=*/0)[0];
      const std::string what = sizes + " " + name;
      golden::expect_elements(out, rules[name]["first2_tokens"], what);
      golden::expect_elements(out[to * to - 1], rules[name]["last_token"], what);
      golden::expect_elements(out[to + 2], rules[name]["token_row1_col2"], what);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, BackbonesTest,
                         ::testing::Values("golden/backbones.json",
                                           "fixtures/backbones_other_seeds.json"),
                         [](const auto& test) {
                           return test.index == 0 ? std::string("Golden") : std::string("Others");
                         });

// ---- fused and not, frozen and not ----

// LayerScale far from 1, a quick GELU, registers, a first norm: everything at once.
VisionTransformer everything() {
  VitOptions options;
  options.image_size = 32;
  options.patch_size = 4;
  options.embed_dim = 48;
  options.depth = 3;
  options.num_heads = 3;
  options.layer_scale = options.norm_pre = options.distilled = true;
  options.registers = 2;
  options.gelu = Gelu::kQuick;
  torch::manual_seed(3);
  VisionTransformer vit(options);
  const torch::NoGradGuard no_grad;
  for (auto& item : vit->named_parameters()) item.value().add_(torch::randn_like(item.value()) / 5);
  return vit;
}

struct Made {
  Tensor tokens, slope;
};

// Outputs for images and prompts, and the gradient of the prompts.
Made made_by(VisionTransformer& vit) {
  torch::manual_seed(4);
  const Tensor images = torch::randn({2, 3, 32, 32});
  ForwardPlan plan;
  plan.prompts = torch::randn({2, 3, 48}).requires_grad_(true);
  plan.outputs = {0, 4};
  const Tensor tokens = vit->forward(images, plan);
  const Tensor slope =
      torch::autograd::grad({tokens}, {plan.prompts}, {torch::randn_like(tokens)}).front();
  return {tokens.detach(), slope};
}

double apart(const Tensor& a, const Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

TEST(LayerScaleAndQuickGelu, AreTheSameFusedOneByOneAndInTraining) {
  VisionTransformer vit = everything();
  const Made trained = made_by(vit);
  vit->train_last_blocks(0);
  const VitOperations& own = vit->compute_with(kReferenceOperations);
  const Made expected = made_by(vit);
  vit->compute_with(own);
  for (const double recompute : {0.0, 1.0}) {
    vit->recompute_mlps(recompute);
    const Made fused = made_by(vit);
    EXPECT_LT(apart(fused.tokens, expected.tokens), 1e-5);
    EXPECT_LT(apart(fused.slope, expected.slope), 1e-5);
  }
  EXPECT_LT(apart(trained.tokens, expected.tokens), 1e-5);
  EXPECT_LT(apart(trained.slope, expected.slope), 1e-5);
  vit->multiply_in_bf16();
  EXPECT_EQ(vit->named_parameters().find("blocks.0.ls1.gamma"), nullptr) << "folded";
  const Made half = made_by(vit);
  EXPECT_LT(apart(half.tokens, expected.tokens), 0.03);
  EXPECT_LT(apart(half.slope, expected.slope), 0.06);
}

TEST(LayerScaleAndQuickGelu, HoldForWhatPairsBesideTheMlpAdd) {
  VisionTransformer vit = everything();
  vit->train_last_blocks(0);
  torch::manual_seed(5);
  const Tensor images = torch::randn({2, 3, 32, 32});
  ForwardPlan plan;
  for (int64_t block = 0; block < 3; ++block) {
    BlockBranches branches;
    branches.fc1 = {{torch::randn({4, 48}) / 7, torch::randn({192, 4}) / 2, 0, {}, {}}};
    branches.fc2 = {
        {torch::randn({4, 192}) / 14, torch::randn({48, 4}).requires_grad_(true), 0, {}, {}}};
    plan.branches.push_back(branches);
  }
  const auto made = [&](const ForwardPlan& with) {
    const Tensor tokens = vit->forward(images, with);
    const Tensor& up = with.branches.empty() ? tokens : with.branches[0].fc2[0].up;
    return Made{tokens.detach(), with.branches.empty()
                                     ? Tensor()
                                     : torch::autograd::grad({tokens.sum()}, {up}).front()};
  };
  const Made fused = made(plan);
  const VitOperations& own = vit->compute_with(kReferenceOperations);
  const Made expected = made(plan), without = made({});
  vit->compute_with(own);
  EXPECT_LT(apart(fused.tokens, expected.tokens), 1e-5);
  EXPECT_LT(apart(fused.slope, expected.slope), 1e-4);
  EXPECT_GT(apart(without.tokens, expected.tokens), 0.1);
  vit->multiply_in_bf16();
  EXPECT_LT(apart(made(plan).tokens, expected.tokens), 0.03);
}

TEST(LayerScaleAndQuickGelu, TheScaleTrainsWhereTheBlockDoes) {
  VisionTransformer vit = everything();
  vit->train_last_blocks(1);
  const Tensor out = vit->features(torch::randn({2, 3, 32, 32}));
  out.sum().backward();
  auto parameters = vit->named_parameters();
  EXPECT_TRUE(parameters["blocks.2.ls2.gamma"].grad().defined());
  EXPECT_FALSE(parameters["blocks.1.ls2.gamma"].grad().defined());
}

TEST(ExtraTokens, NeverMergeAndAreCounted) {
  VisionTransformer vit = everything();
  vit->train_last_blocks(0);
  const torch::NoGradGuard no_grad;
  ForwardPlan plan;
  plan.prompts = torch::randn({2, 3, 48});
  plan.merge = {5, 7, 0};
  const Tensor out = vit->forward(torch::randn({2, 3, 32, 32}), plan);
  const auto tokens = tokens_per_block(vit->options, plan, 3);
  EXPECT_EQ(tokens, (std::vector<int64_t>{1 + 3 + 3 + 64, 1 + 3 + 3 + 59, 1 + 3 + 3 + 52}));
  EXPECT_EQ(out.size(1), tokens.back());
  // All image tokens alike: every match is exact, and what merges is the image tokens only.
  plan.merge = {32, 16, 0};
  const Tensor grey = torch::zeros({1, 3, 32, 32});
  {
    vit->pos_embed.narrow(1, 2, 64).copy_(vit->pos_embed.narrow(1, 2, 1).expand({1, 64, -1}));
    plan.prompts = plan.prompts.narrow(0, 0, 1);
    ForwardPlan whole = plan;
    whole.merge = {};
    plan.proportional_attention = true;
    plan.outputs = whole.outputs = {0, 7};
    EXPECT_LT(apart(vit->forward(grey, plan), vit->forward(grey, whole)), 1e-5);
  }
}

// ---- a real ViT-Ti in other layouts ----

constexpr char kTiny[] = "data/weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors";

class RealTinyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_SHARED(kTiny);
    tensors = read_safetensors(golden::shared(kTiny)).tensors;
    plain = loaded(tensors, vit_options("vit_tiny_patch16_224"));
    images = golden::batch().images;
  }
  static VisionTransformer loaded(const NamedTensors& tensors, const VitOptions& options) {
    const std::string path = ::testing::TempDir() + "/rep_backbones_real.safetensors";
    write_safetensors(path, tensors);
    VisionTransformer vit(options);
    load_weights(vit, path);
    vit->train_last_blocks(0);
    return vit;
  }

  const torch::NoGradGuard no_grad;
  NamedTensors tensors;
  VisionTransformer plain{nullptr};
  Tensor images;
};

TEST_F(RealTinyTest, ThroughLayerScalesOfOneIsThePlainOneBitForBit) {
  VitOptions options = vit_options("vit_tiny_patch16_224");
  options.layer_scale = true;
  NamedTensors scaled = tensors;
  for (int64_t block = 0; block < options.depth; ++block) {
    for (const std::string name : {".ls1.gamma", ".ls2.gamma"}) {
      scaled.emplace_back("blocks." + std::to_string(block) + name, torch::ones({192}));
    }
  }
  VisionTransformer vit = loaded(scaled, options);
  EXPECT_TRUE(torch::equal(vit->features(images), plain->features(images)));
  vit->multiply_in_bf16();
  plain->multiply_in_bf16();
  EXPECT_TRUE(torch::equal(vit->features(images), plain->features(images)));
}

TEST_F(RealTinyTest, ThroughTransformersNamesIsThePlainOneBitForBit) {
  NamedTensors theirs;
  for (const auto& [timm, tensor] : tensors) {
    std::string name = timm;
    const auto replace = [&](const std::string& from, const std::string& to) {
      const size_t at = name.find(from);
      if (at != std::string::npos) name.replace(at, from.size(), to);
    };
    if (name.rfind("head.", 0) == 0) {
      replace("head.", "classifier.");
      theirs.emplace_back(name, tensor);
      continue;
    }
    if (name.rfind("norm.", 0) == 0) name = "layer" + name;
    replace("blocks.", "encoder.layer.");
    replace("norm1", "layernorm_before");
    replace("norm2", "layernorm_after");
    replace("attn.proj", "attention.output.dense");
    replace("mlp.fc1", "intermediate.dense");
    replace("mlp.fc2", "output.dense");
    replace("cls_token", "embeddings.cls_token");
    replace("pos_embed", "embeddings.position_embeddings");
    replace("patch_embed.proj", "embeddings.patch_embeddings.projection");
    const size_t at = name.find("attn.qkv");
    if (at == std::string::npos) {
      theirs.emplace_back("vit." + name, tensor);
      continue;
    }
    const auto parts = tensor.chunk(3);
    for (const auto& [i, part] :
         {std::pair{0, "query"}, std::pair{1, "key"}, std::pair{2, "value"}}) {
      theirs.emplace_back(
          "vit." + std::string(name).replace(at, 8, std::string("attention.attention.") + part),
          parts[static_cast<size_t>(i)].contiguous());
    }
  }
  VisionTransformer vit = loaded(theirs, vit_options("vit_tiny_patch16_224"));
  EXPECT_TRUE(torch::equal(vit->features(images), plain->features(images)));
}

// A distillation token is one prompt more, but for the position: p + position of [CLS] = the token
// + its own position.
TEST_F(RealTinyTest, ThroughADistilledLayoutIsThePlainOneWithThatToken) {
  const Tensor token = torch::randn({1, 1, 192}), place = torch::randn({1, 1, 192});
  NamedTensors distilled;
  for (const auto& [name, tensor] : tensors) {
    distilled.emplace_back(
        name, name == "pos_embed"
                  ? torch::cat({tensor.narrow(1, 0, 1), place, tensor.narrow(1, 1, 196)}, 1)
                  : tensor);
  }
  distilled.emplace_back("dist_token", token);
  distilled.emplace_back("head_dist.weight", torch::ones({1000, 192}));
  distilled.emplace_back("head_dist.bias", torch::ones({1000}));
  VisionTransformer vit = loaded(distilled, vit_options("deit_tiny_distilled_patch16_224"));
  ForwardPlan plan;
  plan.prompts = (token + place - plain->pos_embed.narrow(1, 0, 1)).expand({4, -1, -1});
  EXPECT_LT(apart(vit->features(images), plain->features(images, plan)), 1e-5);
  EXPECT_GT(apart(vit->features(images), plain->features(images)), 1e-3);
}

TEST_F(RealTinyTest, OfAnotherLayoutIsNamedInTheMessage) {
  NamedTensors scaled = tensors;
  scaled.emplace_back("blocks.0.ls1.gamma", torch::ones({192}));
  testing::expect_error([&] { loaded(scaled, vit_options("vit_tiny_patch16_224")); },
                        "tensor 'blocks.0.ls1.gamma' (F32 [192]) has no place in the backbone; the "
                        "file holds a ViT of "
                        "width 192 with 12 blocks, LayerScale");
  testing::expect_error([&] { loaded(tensors, vit_options("deit_tiny_distilled_patch16_224")); },
                        "the file holds a ViT of width 192 with 12 blocks: set backbone.name to "
                        "vit_tiny_patch16_224 or "
                        "deit_tiny_patch16_224");
}

}  // namespace
}  // namespace rep
