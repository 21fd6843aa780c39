// The files in which people have their weights: whatever is around the model, before its names and
// at the end of the file's, the same numbers arrive, or a sentence says what is there instead.
#include <filesystem>
#include <limits>

#include "formats/npz.h"
#include "formats/safetensors.h"
#include "formats/weight_file.h"
#include "nn/weight_names.h"
#include "nn/weights.h"
#include "run/learner.h"
#include "tests/checkpoint_files.h"
#include "tests/small_vit.h"
#include "tests/weight_files.h"

namespace rep {
namespace {

using testing::expect_error;
using testing::expect_same;
using testing::small_vit;
using testing::Tree;

NamedTensors model_tensors(const std::string& prefix = "") {
  NamedTensors tensors;
  for (const auto& [name, tensor] :
       read_safetensors(testing::fixture("google_vit_as_timm.safetensors")).tensors) {
    if (name.rfind("pos_embed_", 0) != 0) tensors.emplace_back(prefix + name, tensor);
  }
  return tensors;
}

std::string saved(const NamedTensors& tensors, const std::string& name = "forms.safetensors") {
  const std::string path = ::testing::TempDir() + "/rep_weights_" + name;
  write_safetensors(path, tensors);
  return path;
}

// Loads the file and expects the fixture's numbers; what was said of it, one text.
std::string expect_the_model(const std::string& path, const std::string& key = "") {
  SCOPED_TRACE(path);
  VisionTransformer vit(small_vit());
  const LoadedWeights loaded = load_weights(vit, path, key);
  for (const auto& [name, tensor] : model_tensors()) {
    if (name.rfind("head.", 0) == 0) continue;
    expect_same(vit->named_parameters()[name].detach(), tensor, name);
  }
  std::string notes;
  for (const Json& note : loaded.inputs.value("notes", Json::array())) {
    notes += note.get<std::string>() + "\n";
  }
  return notes;
}

void expect_refused(const std::string& path, const std::string& part, const std::string& key = "") {
  SCOPED_TRACE(path);
  VisionTransformer vit(small_vit());
  expect_error([&] { load_weights(vit, path, key); }, part);
  expect_error([&] { load_weights(vit, path, key); }, path + ": ");
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// ---- numbers ----

TEST(NumbersThatAreNotFinite, AreRefusedByTheNameOfTheirTensor) {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(), -1e300}) {
    NamedTensors tensors = model_tensors("module.");
    for (auto& [name, tensor] : tensors) {
      if (name != "module.blocks.1.attn.qkv.weight") continue;
      tensor = tensor.to(torch::kFloat64).clone();
      tensor[3][5] = bad;  // -1e300 is one in the file, but none in fp32
    }
    expect_refused(saved(tensors),
                   "tensor 'module.blocks.1.attn.qkv.weight' has 1 of 192 numbers "
                   "that are not finite");
  }
}

TEST(NumbersThatAreNotFinite, OfAPartThatIsNotUsedAreNoMatter) {
  NamedTensors tensors = model_tensors();
  for (auto& [name, tensor] : tensors) {
    if (name == "head.bias") tensor = tensor * std::nan("");
  }
  EXPECT_EQ(expect_the_model(saved(tensors)), "");
}

// ---- prefixes ----

TEST(Prefixes, BeforeAllNamesAreTakenAwayAndSaid) {
  for (const std::string prefix :
       {"backbone.", "model.", "encoder.", "module.", "_orig_mod.", "module._orig_mod.", "teacher.",
        "module.backbone.", "student.module.backbone.", "net.vit.", "visual.trunk."}) {
    const std::string notes = expect_the_model(saved(model_tensors(prefix)));
    EXPECT_TRUE(contains(notes, "names begin with '" + prefix + "', which is taken away")) << notes;
  }
}

TEST(Prefixes, HeadsBesideThemAreLeftOutAndNamed) {
  NamedTensors tensors = model_tensors("module.backbone.");
  tensors.emplace_back("module.head.mlp.0.weight", torch::ones({3, 8}));
  tensors.emplace_back("module.head.last_layer.weight_g", torch::ones({3, 1}));
  const std::string notes = expect_the_model(saved(tensors));
  EXPECT_TRUE(contains(notes,
                       "2 tensors are no part of the backbone and left out: "
                       "module.head."))
      << notes;
}

TEST(Prefixes, BesideUnknownTensorsNeedAWord) {
  NamedTensors tensors = model_tensors("visual_encoder.");
  tensors.emplace_back("qformer.weight", torch::ones({3, 8}));
  const std::string path = saved(tensors);
  expect_refused(path, "tensor 'cls_token' is missing");
  expect_refused(path, "weights_key: visual_encoder takes it alone");
  expect_the_model(path, "visual_encoder");
}

TEST(Prefixes, OfTwoModelsAreAQuestion) {
  NamedTensors tensors = model_tensors("teacher.backbone.");
  for (const auto& [name, tensor] : model_tensors("student.backbone.")) {
    tensors.emplace_back(name, tensor + 1);
  }
  const std::string path = saved(tensors);
  expect_refused(path,
                 "They lie below 'student.backbone' and 'teacher.backbone': name one as "
                 "weights_key");
  expect_the_model(path, "teacher");
  expect_the_model(path, "teacher.backbone");
  expect_refused(path, "names begin with 'student', 'teacher'", "ema");
}

// ---- other names ----

// transformers' names of the model: as its files have them, or as version 5's modules.
NamedTensors transformers_names(const std::string& prefix, bool version_5) {
  NamedTensors result;
  const auto put = [&](const std::string& name, const torch::Tensor& tensor) {
    result.emplace_back(prefix + name, tensor);
  };
  for (const auto& [name, tensor] : model_tensors()) {
    const size_t dot = name.rfind('.');
    const std::string kind = dot == std::string::npos ? "" : name.substr(dot);  // ".weight"
    if (name == "cls_token") put("embeddings.cls_token", tensor);
    if (name == "pos_embed") put("embeddings.position_embeddings", tensor);
    if (name.rfind("patch_embed.proj.", 0) == 0) {
      put("embeddings.patch_embeddings.projection" + kind, tensor);
    }
    if (name.rfind("norm.", 0) == 0) put("layernorm" + kind, tensor);
    if (name.rfind("blocks.", 0) != 0) continue;
    const std::string block = (version_5 ? "layers." : "encoder.layer.") + name.substr(7, 2);
    const std::string inner = name.substr(9, dot - 9);
    if (inner == "attn.qkv") {
      const auto parts = tensor.chunk(3);
      for (int64_t i = 0; i < 3; ++i) {
        const std::string part = std::vector<std::string>{"query", "key", "value"}[i];
        put(block +
                (version_5 ? "attention." + part.substr(0, 1) + "_proj"
                           : "attention.attention." + part) +
                kind,
            parts[static_cast<size_t>(i)].contiguous());
      }
    }
    const std::pair<std::string, std::string> kRows[] = {
        {"norm1", "layernorm_before"},
        {"norm2", "layernorm_after"},
        {"attn.proj", version_5 ? "attention.o_proj" : "attention.output.dense"},
        {"mlp.fc1", version_5 ? "mlp.fc1" : "intermediate.dense"},
        {"mlp.fc2", version_5 ? "mlp.fc2" : "output.dense"}};
    for (const auto& [timm, theirs] : kRows) {
      if (inner == timm) put(block + theirs + kind, tensor);
    }
  }
  return result;
}

TEST(TransformersNames, AreReadWithQueryKeyAndValueJoined) {
  for (const bool version_5 : {false, true}) {
    for (const std::string prefix : {"", "vit.", "module.vit."}) {
      NamedTensors tensors = transformers_names(prefix, version_5);
      const std::string top = prefix == "module.vit." ? "module." : "";
      tensors.emplace_back(top + "classifier.weight", torch::ones({4, 8}));
      tensors.emplace_back(prefix + "pooler.dense.weight", torch::ones({8, 8}));
      if (prefix.empty()) tensors.erase(tensors.end() - 2);  // a bare model has no classifier
      const std::string notes = expect_the_model(saved(tensors));
      EXPECT_TRUE(contains(notes, "transformers' ViT")) << notes;
      EXPECT_TRUE(contains(notes, "pooler.dense.weight")) << notes;
    }
  }
}

TEST(TransformersNames, ComeBackInMessages) {
  NamedTensors tensors = transformers_names("vit.", false);
  const std::string key = "vit.encoder.layer.1.attention.attention.key.weight";
  for (auto& [name, tensor] : tensors) {
    if (name == key) tensor = torch::full_like(tensor, std::nan(""));
  }
  expect_refused(saved(tensors), key);
  tensors.erase(std::find_if(tensors.begin(), tensors.end(),
                             [&](const auto& item) { return item.first == key; }));
  expect_refused(saved(tensors), "the query, key and value arrays of 'blocks.1.attn.qkv.weight'");
  tensors = transformers_names("", false);
  tensors.emplace_back("encoder.layer.0.attention.lora.weight", torch::ones({2}));
  expect_refused(saved(tensors),
                 "tensor 'encoder.layer.0.attention.lora.weight' (F32 [2]) has no "
                 "place");
}

// big_vision's names of Google's arrays (timm's _load_weights has the table).
NamedTensors big_vision_names(const std::string& prefix, bool stacked) {
  const std::pair<std::string, std::string> kNumbers[] = {
      {"MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0"},
      {"LayerNorm_2", "LayerNorm_1"},
      {"MlpBlock_3", "MlpBlock_0"},
      {"Transformer/posembed_input/pos_embedding", "pos_embedding"}};
  NamedTensors result;
  std::map<std::string, std::vector<torch::Tensor>> stacks;
  for (auto [name, tensor] : read_npz(testing::fixture("google_vit.npz"))) {
    for (const auto& [old, fresh] : kNumbers) {
      const size_t at = name.find(old);
      if (at != std::string::npos) name.replace(at, old.size(), fresh);
    }
    const std::string block = "Transformer/encoderblock_";
    if (stacked && name.rfind(block, 0) == 0) {
      stacks["Transformer/encoderblock/" + name.substr(block.size() + 2)].push_back(tensor);
    } else {
      result.emplace_back(prefix + name, tensor);
    }
  }
  for (const auto& [name, tensors] : stacks) {
    result.emplace_back(prefix + name, torch::stack(tensors));
  }
  return result;
}

TEST(BigVisionNames, AreReadAsTimmReadsThem) {
  for (const bool stacked : {false, true}) {
    for (const std::string prefix : {"params/", "params/img/", ""}) {
      NamedTensors arrays = big_vision_names(prefix, stacked);
      if (prefix == "params/img/") arrays.emplace_back("params/t", torch::ones({1}));
      expect_the_model(testing::npz_file("big_vision.npz", arrays));
    }
  }
}

TEST(NumbersThatAreNotFinite, OfChunksAndStacksAreNamedAsTheFileHasThem) {
  NamedTensors chunks = model_tensors();
  for (auto& [name, tensor] : chunks) {
    if (name == "blocks.1.norm1.weight") tensor = tensor * std::nan("");
    if (name.rfind("blocks.", 0) == 0) name.insert(7, "0.");
  }
  expect_refused(saved(chunks), "tensor 'blocks.0.1.norm1.weight' has");
  NamedTensors stacks = big_vision_names("params/", /*stacked=*/true);
  const std::string scale = "params/Transformer/encoderblock/LayerNorm_0/scale";
  for (auto& [name, tensor] : stacks) {
    if (name == scale) tensor[1] = std::nan("");
  }
  expect_refused(testing::npz_file("big_vision.npz", stacks), "tensor '" + scale + "[1]' has");
}

// ---- what is around the model ----

TEST(Checkpoints, AreKnownByTheirBytesAndNotByTheirNames) {
  for (const char* name : {"a.pth.tar", "a.ckpt", "a.model", "a", "a.safetensors.bak", "a.npz"}) {
    expect_the_model(testing::torch_file(name, Tree().add(model_tensors())));
    expect_the_model(saved(model_tensors(), name));
    const std::string google = testing::bytes_of_file(testing::fixture("google_vit.npz"));
    expect_the_model(testing::temporary_file(name, google));
  }
}

TEST(Checkpoints, GiveTheModelFromUnderTheUsualKeys) {
  for (const char* key : {"model", "state_dict", "teacher", "student", "model_state_dict", "net",
                          "module", "backbone", "anything"}) {
    Tree file;
    file.add("epoch", testing::pickled::integer(7)).add(key, Tree().add(model_tensors("module.")));
    file.add("optimizer", Tree().add("param_groups", std::string("]")));
    const std::string notes = expect_the_model(testing::torch_file("wrapped.pth", file));
    EXPECT_FALSE(contains(notes, "takes")) << notes;
  }
}

TEST(Checkpoints, SayWhichModelTheyTakeAndTakeAnother) {
  NamedTensors other = model_tensors();
  for (auto& item : other) item.second = item.second + 1;
  Tree file;
  file.add("state_dict_ema", Tree().add(model_tensors())).add("state_dict", Tree().add(other));
  const std::string path = testing::torch_file("ema.pth.tar", file);
  const std::string size = std::to_string(other.size());
  expect_the_model(path, "state_dict_ema");
  VisionTransformer vit(small_vit());
  const LoadedWeights loaded = load_weights(vit, path);
  EXPECT_EQ(loaded.inputs["notes"][0], "takes 'state_dict' of 'state_dict_ema' (" + size +
                                           "), 'state_dict' (" + size +
                                           ") tensors; weights_key names another");
  expect_same(vit->named_parameters()["norm.bias"].detach(), testing::at(other, "norm.bias"));
  expect_refused(path, "nothing is called 'ema' in it; tensors lie in 'state_dict_ema' (" + size,
                 "ema");
}

TEST(Checkpoints, OfSelfDistillationGiveTheTeacher) {
  NamedTensors student = model_tensors("module.backbone.");
  for (auto& item : student) item.second = item.second + 1;
  Tree teacher;
  teacher.add(model_tensors("backbone.")).add("head.mlp.0.weight", torch::ones({2, 8}));
  Tree file;
  file.add("student", Tree().add(student)).add("teacher", teacher);
  file.add("dino_loss", Tree().add("center", torch::ones({1, 4})));
  const std::string path = testing::torch_file("dino.pth", file);
  EXPECT_TRUE(contains(expect_the_model(path), "takes 'teacher' of "));
  expect_the_model(path, "teacher");
  expect_the_model(path, "teacher.backbone");
}

TEST(Checkpoints, OfUnknownKeysAskForOne) {
  Tree file;
  file.add("online", Tree().add(model_tensors())).add("target", Tree().add(model_tensors()));
  const std::string path = testing::torch_file("unknown.pth", file);
  expect_refused(path, "which of its parts is the model? Tensors lie in 'online' (");
  expect_the_model(path, "target");
}

TEST(Checkpoints, WithoutTensorsNameTheirKeys) {
  Tree file;
  file.add("epoch", testing::pickled::integer(3)).add("args", Tree());
  expect_refused(testing::torch_file("none.pth", file),
                 "no tensors found below its keys 'epoch', 'args': save the model's state_dict()");
}

TEST(Checkpoints, HoldIntegersOfAnySize) {
  // 2^64 - 1, as torch.initial_seed() may be, in nine bytes; and one of 200.
  Tree file;
  file.add("seed", std::string("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0", 11))
      .add("state", "\x8a\xc8" + std::string(200, '\x7f'))
      .add("model", Tree().add(model_tensors()));
  expect_the_model(testing::torch_file("seed.pth", file));
}

TEST(Checkpoints, OfWholeModulesAndTorchScriptAreReadForTheirTensors) {
  // A module that Python pickled: tensors in _parameters, modules in _modules.
  const auto module = [](const NamedTensors& own,
                         const std::vector<std::pair<std::string, Tree>>& parts) {
    Tree tree, parameters, modules;
    parameters.add(own);
    for (const auto& [name, part] : parts) modules.add(name, part);
    tree.add("training", std::string("\x88")).add("_parameters", parameters);
    tree.add("_buffers", Tree()).add("_modules", modules);
    tree.module = true;
    return tree;
  };
  Tree script;  // TorchScript's: side by side
  script.module = true;
  const auto weights = [](const char* which) {
    return NamedTensors{{"weight", torch::full({2}, 1.f)},
                        {"bias", torch::full({2}, static_cast<float>(which[0]))}};
  };
  Tree inner;
  inner.module = true;
  inner.add(weights("b"));
  script.add("top", torch::zeros({1})).add("inner", inner);
  const Tree python = module({{"top", torch::zeros({1})}}, {{"inner", module(weights("b"), {})}});
  for (const Tree& tree : {script, python}) {
    for (const bool nested : {false, true}) {
      const std::string path =
          testing::torch_file("module.pt", nested ? Tree().add("model", tree) : tree);
      const NamedTensors read = read_weight_file(path).tensors;
      ASSERT_EQ(read.size(), 3u);
      expect_same(testing::at(read, "top"), torch::zeros({1}));
      expect_same(testing::at(read, "inner.bias"), torch::full({2}, 98.f));
    }
  }
}

TEST(Checkpoints, WhoseModulesContainThemselvesAreRefused) {
  // An object that is its own attribute.
  const std::string path =
      testing::temporary_zip("cycle.pt", {{"a/data.pkl",
                                           "\x80\x02"
                                           "cmy\nNet\n)\x81q\x01}(" +
                                               testing::pickled::text("a") + "h\x01ub."},
                                          {"a/version", "3\n"}});
  expect_refused(path, "nested beyond any model's");
}

// ---- shards ----

struct Shards {
  std::string folder, index;
};

Shards sharded(const std::string& name, bool torch_files = false) {
  const std::string folder = ::testing::TempDir() + "/rep_weights_" + name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const NamedTensors all = model_tensors("vit.");
  Json map;
  for (int part = 0; part < 2; ++part) {
    NamedTensors tensors;
    const std::string file = std::string(torch_files ? "pytorch_model" : "model") + "-0000" +
                             std::to_string(part + 1) + "-of-00002" +
                             (torch_files ? ".bin" : ".safetensors");
    for (size_t i = static_cast<size_t>(part); i < all.size(); i += 2) {
      tensors.push_back(all[i]);
      map[all[i].first] = file;
    }
    if (torch_files) {
      std::filesystem::copy_file(testing::torch_file(file, Tree().add(tensors)),
                                 folder + "/" + file);
    } else {
      write_safetensors(folder + "/" + file, tensors);
    }
  }
  const std::string index =
      folder + (torch_files ? "/pytorch_model.bin.index.json" : "/model.safetensors.index.json");
  std::ofstream(index) << Json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump();
  return {folder, index};
}

void rewrite(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

TEST(Shards, AreReadThroughTheirIndex) {
  for (const bool torch_files : {false, true}) {
    const Shards shards = sharded("shards", torch_files);
    expect_the_model(shards.index);
    VisionTransformer vit(small_vit());
    const Json inputs = load_weights(vit, shards.index).inputs;
    EXPECT_EQ(inputs["shards"].size(), 2u);
    int64_t bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(shards.folder)) {
      bytes += static_cast<int64_t>(file.file_size());
    }
    EXPECT_EQ(inputs["bytes"], bytes);
    expect_refused(shards.folder, "a folder; name the file in it: " + shards.index);
  }
}

TEST(Shards, ThatLackAFileOrATensorAreRefused) {
  const Shards shards = sharded("lacking");
  std::filesystem::remove(shards.folder + "/model-00002-of-00002.safetensors");
  expect_refused(shards.index,
                 "of the 2 files that it names 'model-00002-of-00002.safetensors' is "
                 "not beside it");
  write_safetensors(shards.folder + "/model-00002-of-00002.safetensors", {{"x", torch::ones(1)}});
  expect_refused(shards.index,
                 "is not in model-00002-of-00002.safetensors, where the index has it");
}

TEST(Shards, LieBesideTheirIndexAndNowhereElse) {
  const Shards shards = sharded("hostile");
  for (const char* file :
       {"../x.safetensors", "/etc/passwd", "..", ".", "", "a\\\\b", "a\\u0000"}) {
    rewrite(shards.index, R"({"weight_map": {"a": ")" + std::string(file) + "\"}}");
    expect_refused(shards.index, "a shard is not a plain file name");
  }
  rewrite(shards.index, R"({"weight_map": {"a": "model.safetensors.index.json"}})");
  expect_refused(shards.index, "is an index itself");
  rewrite(shards.index, R"({"weight_map": {"a": 3}})");
  expect_refused(shards.index, "no fit name");
  rewrite(shards.index, R"({"weight_map": {}})");
  expect_refused(shards.index, "names no tensor");
  rewrite(shards.index, R"({"model_type": "vit"})");
  expect_refused(shards.index, "JSON, but no index");
  rewrite(shards.index, R"({"weight_map": )");
  expect_refused(shards.index, "not valid JSON");
  rewrite(shards.index, R"({"a": [[[[1]]]]})");
  expect_refused(shards.index, "nested too deeply");
}

// ---- no weights at all ----

TEST(FilesThatAreNoWeights, SayWhatTheyAre) {
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\n"
      "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
  for (const char* name : {"a.pth", "a.safetensors", "a.npz"}) {
    const auto refused = [&](const std::string& bytes, const std::string& part) {
      expect_refused(testing::temporary_file(name, bytes), part);
    };
    refused(pointer,
            "a git-lfs pointer, which stands for a file of 12345 bytes, not the weights: "
            "'git lfs pull' in its folder fetches them");
    refused("<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page (HTML), not weights");
    refused("  \n<html lang=en>", "a web page (HTML), not weights");
    refused("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
            "an XML message, not weights");
    refused("", "an empty file");
  }
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    expect_refused(testing::temporary_file("a.pth", bytes), part);
  };
  refused("\x89HDF\r\n\x1a\n and more", "an HDF5 file");
  refused("\x1f\x8b\x08 and more", "packed with gzip");
  refused(std::string(257, 'x') + "ustar" + std::string(300, '\1'), "a tar archive");
  refused("Entry not found", "not a file of weights that is known here");
  refused("PK\x03\x04 cut short", "zip archive");
  expect_refused(testing::temporary_zip("a.zip", {{"readme.txt", "hello"}}),
                 "neither one that torch.save wrote");
  expect_refused(::testing::TempDir() + "/rep_weights_absent.pth", "there is no such file");
  expect_refused(testing::fixture("legacy.pth"), "legacy format");
}

// ---- pixels ----

TEST(Pixels, ThatWeightsWereTrainedWithAreKnownWhereTheFileTells) {
  const auto wanted = [](const std::string& path) {
    VisionTransformer vit(small_vit());
    return load_weights(vit, path).normalise;
  };
  EXPECT_EQ(wanted(saved(model_tensors(), "vit.augreg_in21k.safetensors")), "half");
  EXPECT_EQ(wanted(saved(model_tensors(), "dino_deitsmall16_pretrain.pth")), "imagenet");
  EXPECT_EQ(wanted(testing::fixture("google_vit.npz")), "half");
  EXPECT_EQ(wanted(saved(model_tensors(), "mine.safetensors")), "");
  const std::string path = ::testing::TempDir() + "/rep_weights_own.safetensors";
  write_safetensors(path, model_tensors(),
                    {{"pretraining", R"({"backbone": {"normalise": "cifar"}})"}});
  EXPECT_EQ(wanted(path), "cifar");
  write_safetensors(path, model_tensors(), {{"pretraining", "[1"}});
  EXPECT_EQ(wanted(path), "");
}

TEST(Remarks, TellWhatWasFoundAndWhatPixelsAreMissing) {
  const Json inputs =
      Json::parse(R"({"weights": {"path": "a", "notes": ["one", "two"], "hint": "three"},
                                      "query_weights": {"path": "b", "notes": ["four"]}})");
  EXPECT_EQ(remarks(inputs), (std::vector<std::string>{"weights: one", "weights: two",
                                                       "weights: three", "query_weights: four"}));
  EXPECT_TRUE(remarks(Json::parse(R"({"weights": {"path": "a"}})")).empty());
}

TEST(HostileCheckpoints, DamageGivesAnErrorOrTensors) {
  Tree file;
  file.add("epoch", testing::pickled::integer(7))
      .add("model", Tree().add({{"a", torch::ones({3})}}));
  Tree module;
  module.module = true;
  module.add("b", torch::ones({2})).add("c", file);
  file.add("teacher", module);
  const std::string torch = testing::bytes_of_file(testing::torch_file("fuzz.pth", file));
  const std::string index = R"({"metadata": {"total_size": 8}, "weight_map": {"a": "b.bin"}})";
  for (const std::string& bytes : {torch, index}) {
    testing::fuzz(bytes, 1000, [](const std::string& damaged) {
      read_weight_file(testing::temporary_file("fuzz", damaged), "");
      read_weight_file(testing::temporary_file("fuzz", damaged), "model");
    });
  }
}

}  // namespace
}  // namespace rep
