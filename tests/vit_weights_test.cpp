#include <algorithm>

#include "formats/npz.h"
#include "formats/safetensors.h"
#include "formats/weight_file.h"
#include "golden.h"
#include "nn/weight_names.h"
#include "nn/weights.h"
#include "small_vit.h"
#include "weight_files.h"

namespace rep {
namespace {

using testing::expect_error;
using testing::expect_same;
using testing::small_vit;

// What timm's loader makes of google_vit.npz, computed in Python by its rules.
NamedTensors timm_weights() {
  return read_safetensors(testing::fixture("google_vit_as_timm.safetensors")).tensors;
}

torch::Tensor parameter(VisionTransformer& vit, const std::string& name) {
  return vit->named_parameters()[name].detach();
}

NamedTensors without(const NamedTensors& tensors, const std::vector<std::string>& names) {
  NamedTensors rest;
  for (const auto& item : tensors) {
    if (std::find(names.begin(), names.end(), item.first) == names.end()) rest.push_back(item);
  }
  return rest;
}

NamedTensors backbone_weights() {
  return without(timm_weights(), {"pos_embed_5x5", "pos_embed_2x2"});
}

std::string saved(const NamedTensors& tensors) {
  const std::string path = ::testing::TempDir() + "/rep_weights_vit.safetensors";
  write_safetensors(path, tensors);
  return path;
}

void expect_load_error(const NamedTensors& tensors, const VitOptions& options,
                       const std::string& part) {
  const std::string path = saved(tensors);
  VisionTransformer vit(options);
  expect_error([&] { load_weights(vit, path); }, part);
  expect_error([&] { load_weights(vit, path); }, path + ": ");
}

TEST(GoogleNames, BecomeTimmsWithTimmsLayouts) {
  const NamedTensors translated =
      to_timm_names(read_weight_file(testing::fixture("google_vit.npz")).tensors, "x.npz").tensors;
  const NamedTensors expected = backbone_weights();
  EXPECT_EQ(translated.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    expect_same(testing::at(translated, name), tensor, name);
  }
}

TEST(GoogleNames, UnderTheOptimisersTargetAreTheSame) {
  NamedTensors google = read_npz(testing::fixture("google_vit.npz"));
  for (auto& item : google) item.first = "opt/target/" + item.first;
  const NamedTensors translated = to_timm_names(google, "x.npz").tensors;
  for (const auto& [name, tensor] : backbone_weights()) {
    expect_same(testing::at(translated, name), tensor, name);
  }
}

TEST(GoogleNames, HostileShapesAreRefused) {
  const NamedTensors google = read_npz(testing::fixture("google_vit.npz"));
  const std::string block = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/";
  const auto refused = [&](const std::string& name, const torch::Tensor& tensor,
                           const std::string& part) {
    NamedTensors changed = without(google, {name});
    if (tensor.defined()) changed.emplace_back(name, tensor);
    expect_error([&] { renamed(changed, google_family(), "", "x.npz"); }, part);
  };
  refused("embedding/kernel", torch::zeros({2, 2}), "not of 4 dimensions");
  refused("head/kernel", torch::zeros({2}), "not of 2 dimensions");
  refused(block + "out/kernel", torch::zeros({}), "not of 3 dimensions");
  refused(block + "query/kernel", torch::zeros({8, 8}), "not of 3 dimensions");
  refused(block + "key/kernel", torch::zeros({8, 2, 3}), "'blocks.0.attn.qkv.weight' are not all");
  refused(block + "value/bias", {}, "'blocks.0.attn.qkv.bias' are not all there");
}

TEST(LoadWeights, FillsEveryParameterAndSaysFromWhere) {
  VisionTransformer vit(small_vit());
  const std::string path = testing::fixture("google_vit.npz");
  const LoadedWeights loaded = load_weights(vit, path);
  for (const auto& [name, tensor] : backbone_weights()) {
    if (name.substr(0, 5) != "head.") expect_same(parameter(vit, name), tensor, name);
  }
  EXPECT_EQ(loaded.inputs.at("path"), path);
  EXPECT_EQ(loaded.inputs.at("bytes"), testing::bytes_of_file(path).size());
  EXPECT_EQ(loaded.inputs.at("sha256").get<std::string>().size(), 64u);
  EXPECT_EQ(loaded.inputs.size(), 3u);
}

TEST(LoadWeights, KeepsParametersTrainableAndInTheirOwnType) {
  NamedTensors half = backbone_weights();
  for (auto& item : half) item.second = item.second.to(torch::kFloat16);
  VisionTransformer vit(small_vit());
  const torch::Tensor before = vit->norm->weight;
  load_weights(vit, saved(half));
  EXPECT_TRUE(before.is_same(vit->norm->weight));
  for (const auto& item : vit->named_parameters()) {
    EXPECT_EQ(item.value().scalar_type(), torch::kFloat32) << item.key();
    EXPECT_TRUE(item.value().requires_grad()) << item.key();
    // The fixture's values are exact in half precision too.
    expect_same(item.value().detach(), testing::at(backbone_weights(), item.key()), item.key());
  }
}

// Bit for bit, whatever comes after it included.
TEST(LoadWeights, BlockByBlockInBf16IsAllOfItAndThenBf16) {
  const NamedTensors tensors = [] {
    torch::manual_seed(8);
    VisionTransformer vit(vit_options("vit_nano"));
    NamedTensors drawn;
    for (const auto& item : vit->named_parameters()) {
      drawn.emplace_back(item.key(), item.value().detach() + 0.1 * torch::randn_like(item.value()));
    }
    return drawn;
  }();
  const torch::Tensor images = torch::rand({2, 3, 32, 32});
  for (const std::string& weights : {std::string("random"), saved(tensors)}) {
    BackboneConfig config;
    config.name = "vit_nano";
    config.weights = weights;
    Json ignored;
    torch::manual_seed(3);
    VisionTransformer whole = make_vit(config, &ignored);
    const torch::Tensor after_whole = torch::rand({3});
    whole->multiply_in_bf16();
    torch::manual_seed(3);
    VisionTransformer parts = make_vit(config, &ignored, /*in_bf16=*/true);
    EXPECT_TRUE(torch::rand({3}).equal(after_whole)) << weights;
    parts->multiply_in_bf16();  // nothing is left to do
    const auto expected = whole->named_parameters(), actual = parts->named_parameters();
    ASSERT_EQ(actual.keys(), expected.keys()) << weights;
    for (const auto& item : expected) {
      const torch::Tensor& made = actual[item.key()];
      EXPECT_EQ(made.scalar_type(), item.value().scalar_type()) << item.key();
      EXPECT_TRUE(made.equal(item.value())) << item.key();
      EXPECT_FALSE(made.requires_grad()) << item.key();
    }
    EXPECT_EQ(parts->blocks[0]->attn->qkv->weight.scalar_type(), torch::kBFloat16);
    const torch::NoGradGuard no_grad;
    EXPECT_TRUE(parts->features(images, {}).equal(whole->features(images, {}))) << weights;
  }
}

TEST(LoadWeights, TakesAHeadOfTheSameShapeOnly) {
  VitOptions options = small_vit();
  options.num_classes = 5;
  VisionTransformer same(options);
  load_weights(same, saved(backbone_weights()));
  expect_same(parameter(same, "head.weight"), testing::at(timm_weights(), "head.weight"));

  options.num_classes = 7;
  VisionTransformer other(options);
  const torch::Tensor before = parameter(other, "head.weight").clone();
  load_weights(other, saved(backbone_weights()));
  expect_same(parameter(other, "head.weight"), before);

  VisionTransformer without_one(options);
  load_weights(without_one, saved(without(backbone_weights(), {"head.weight", "head.bias"})));
  expect_same(parameter(without_one, "norm.weight"), testing::at(timm_weights(), "norm.weight"));
}

TEST(LoadWeights, StripsThePrefixOfDistributedTraining) {
  NamedTensors wrapped = backbone_weights();
  for (auto& item : wrapped) item.first = "module." + item.first;
  VisionTransformer vit(small_vit());
  load_weights(vit, saved(wrapped));
  expect_same(parameter(vit, "cls_token"), testing::at(timm_weights(), "cls_token"));
  // Only when all names have it.
  wrapped.emplace_back("extra", torch::zeros({1}));
  expect_load_error(wrapped, small_vit(), "tensor 'cls_token' is missing");
}

TEST(LoadWeights, InterpolatesPositionsAsTimmDoes) {
  // Reference values: torch.nn.functional.interpolate(mode="bicubic", antialias=True), Python.
  for (const auto& [grid, name] : {std::pair<int64_t, std::string>{5, "pos_embed_5x5"},
                                   std::pair<int64_t, std::string>{2, "pos_embed_2x2"}}) {
    VitOptions options = small_vit();
    options.image_size = 2 * grid;
    VisionTransformer vit(options);
    load_weights(vit, saved(backbone_weights()));
    const torch::Tensor expected = testing::at(timm_weights(), name);
    EXPECT_EQ(describe(vit->pos_embed), describe(expected));
    EXPECT_LT((parameter(vit, "pos_embed") - expected).abs().max().item<double>(), 1e-6) << name;
  }
}

TEST(LoadWeights, MissingAndExtraAndWrongTensorsAreNamed) {
  const NamedTensors good = backbone_weights();
  expect_load_error(without(good, {"blocks.1.norm2.bias"}), small_vit(),
                    "tensor 'blocks.1.norm2.bias' is missing (F32 [8])");
  NamedTensors extra = good;
  extra.emplace_back("fc_norm.weight", torch::ones({8}));
  expect_load_error(extra, small_vit(), "tensor 'fc_norm.weight' (F32 [8]) has no place");
  NamedTensors wrong = without(good, {"norm.weight"});
  wrong.emplace_back("norm.weight", torch::ones({9}));
  expect_load_error(wrong, small_vit(), "tensor 'norm.weight' is F32 [9] but must be F32 [8]");
  wrong.back().second = torch::ones({8}, torch::kInt64);
  expect_load_error(wrong, small_vit(), "tensor 'norm.weight' is I64 [8] but must be F32 [8]");
  // Positions that are no square grid, or have no class token.
  for (const int64_t tokens : {1, 9, 12}) {
    NamedTensors positions = without(good, {"pos_embed"});
    positions.emplace_back("pos_embed", torch::zeros({1, tokens, 8}));
    expect_load_error(positions, small_vit(), "tensor 'pos_embed' is F32 [1, ");
  }
}

TEST(LoadWeights, NamesTheBackboneThatTheFileFits) {
  NamedTensors tiny;
  VisionTransformer source(vit_options("vit_tiny_patch16_224", 32));
  for (const auto& item : source->named_parameters()) tiny.emplace_back(item.key(), item.value());
  expect_load_error(
      tiny, vit_options("vit_small_patch16_224", 32),
      "tensor 'cls_token' is F32 [1, 1, 192] but must be F32 [1, 1, 384]; the file holds a "
      "ViT of width 192 with 12 blocks: set backbone.name to vit_tiny_patch16_224");
}

TEST(LoadWeights, RandomMustBeSaidByName) {
  VisionTransformer vit(small_vit());
  const torch::Tensor before = parameter(vit, "patch_embed.proj.weight").clone();
  const Json inputs = load_weights(vit, "random").inputs;
  EXPECT_EQ(inputs.at("path"), "random");
  EXPECT_TRUE(inputs.contains("warning"));
  expect_same(parameter(vit, "patch_embed.proj.weight"), before);
  expect_error([&] { load_weights(vit, ""); }, "backbone.weights is empty");
  expect_error([&] { load_weights(vit, "weights.h5"); }, "only");
}

TEST(LoadWeights, LoadsARealBackbone) {
  const std::string name = "data/weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors";
  SKIP_WITHOUT_SHARED(name);
  VisionTransformer vit(vit_options("vit_tiny_patch16_224"));
  const Json inputs = load_weights(vit, golden::shared(name)).inputs;
  EXPECT_EQ(inputs.at("bytes"), 11448456);
  EXPECT_EQ(inputs.at("sha256"),
            "c1b940e3f04cea9332f83bba065a447ed6d4ef70191abb9a924be58ce2ee7059");
  // Read with Python's safetensors.
  EXPECT_NEAR(parameter(vit, "blocks.11.mlp.fc2.weight").to(torch::kFloat64).sum().item<double>(),
              -78.91799426078796, 1e-6);
}

TEST(ReadWeightFile, TakesEverySuffixInAnyCase) {
  const std::string bytes = testing::bytes_of_file(testing::fixture("plain.pth"));
  for (const char* name : {"a.pth", "a.pt", "a.bin", "a.PTH"}) {
    EXPECT_EQ(read_weight_file(testing::temporary_file(name, bytes)).tensors.size(), 2u) << name;
  }
}

}  // namespace
}  // namespace rep
