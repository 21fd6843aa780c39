// rep export: what it writes is what the checkpoint holds, whatever the method.
#include "run/export.h"

#include <set>

#include "core/error.h"
#include "formats/safetensors.h"
#include "methods/method.h"
#include "run/tensor_roles.h"
#include "tensor/torch.h"
#include "tests/run_command.h"

namespace rep {
namespace {

using Tensors = std::map<std::string, torch::Tensor>;

Tensors tensors_in(const std::string& path) {
  const Safetensors file = read_safetensors(path);
  return {file.tensors.begin(), file.tensors.end()};
}

Tensors checkpoint_of(const std::string& run) {
  return tensors_in(run + "/checkpoint/state.safetensors");
}

std::string learned(const std::string& folder) { return folder + "/" + kLearnedFile; }

bool same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

std::string run_of(const std::string& method, const std::string& folder,
                   const std::string& more = "") {
  const std::string config = write_text(folder + "/c.yaml", small_experiment(method, more));
  const Finished run =
      rep_command("run " + config + " -q --set train.epochs=1 --set stream.tasks=2 " + "--output " +
                  folder + "/run");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  return folder + "/run";
}

/// "a" of "learner.method.a"; "" for what is not the method's.
std::string method_name(const std::string& name) {
  const std::string prefix = "learner.method.";
  return name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : "";
}

class ExportOf : public ::testing::TestWithParam<std::string> {};

TEST_P(ExportOf, HoldsTheTensorsOfTheCheckpointBitForBit) {
  const std::string folder = fresh_folder("export_" + GetParam());
  const std::string run = run_of(GetParam(), folder);
  const Finished done = rep_command("export " + run + " --output " + folder + "/out");
  ASSERT_EQ(done.exit_code, 0) << done.output;
  const Tensors checkpoint = checkpoint_of(run), exported = tensors_in(learned(folder + "/out"));
  const auto model = read_json(folder + "/out/" + kModelFile);

  for (const auto& [name, tensor] : exported) {
    const auto source = checkpoint.find("learner.method." + name);
    ASSERT_NE(source, checkpoint.end()) << name;
    EXPECT_TRUE(same_bits(tensor, source->second)) << name;
    const auto& said = model["tensors"].at(name);
    EXPECT_EQ(said["shape"].get<std::vector<int64_t>>(), tensor.sizes().vec()) << name;
    EXPECT_EQ(said["bytes"], tensor.nbytes()) << name;
  }
  EXPECT_EQ(model["tensors"].size(), exported.size());
  EXPECT_FALSE(exported.empty());
  // Every tensor of the method is there or named as left out, and none without a meaning.
  for (const auto& [full, tensor] : checkpoint) {
    const std::string name = method_name(full);
    if (name.empty()) continue;
    const auto role = role_of(name);
    ASSERT_TRUE(role) << name << " is not in src/run/tensor_roles.cpp";
    EXPECT_EQ(exported.count(name), role->is_memory() ? 0U : 1U) << name;
    EXPECT_EQ(model["left_out"].contains(name), role->is_memory()) << name;
  }
  ASSERT_EQ(model["classes"].size(), 6U);
  EXPECT_EQ(model["classes"][5]["label"], 5);
  EXPECT_EQ(model["method"]["name"], GetParam());
  EXPECT_EQ(model["preprocessing"]["image_size"], 32);

  const Finished shown = rep_command("inspect " + folder + "/out");
  EXPECT_EQ(shown.exit_code, 0) << shown.output;
  EXPECT_NE(shown.output.find("method         " + GetParam() + " ("), std::string::npos)
      << shown.output;
  for (const auto& [name, tensor] : exported) {
    EXPECT_NE(shown.output.find(name + " "), std::string::npos) << name;
  }
  EXPECT_EQ(rep_command("inspect " + learned(folder + "/out")).exit_code, 0);
}

std::vector<std::string> all_methods() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : Registry<MethodKind>::get().entries()) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Methods, ExportOf, ::testing::ValuesIn(all_methods()));

TEST(Export, LeavesStoredImagesOutUnlessTheyAreAskedFor) {
  const std::string folder = fresh_folder("export_memory"), run = run_of("er", folder);
  export_model({run, folder + "/plain", false});
  export_model({run, folder + "/whole", true});
  EXPECT_EQ(tensors_in(learned(folder + "/plain")).count("buffer.pixels"), 0U);
  const Tensors whole = tensors_in(learned(folder + "/whole"));
  ASSERT_EQ(whole.count("buffer.pixels"), 1U);
  EXPECT_TRUE(
      same_bits(whole.at("buffer.pixels"), checkpoint_of(run).at("learner.method.buffer.pixels")));
  const auto model = read_json(folder + "/plain/" + kModelFile);
  EXPECT_GT(model["left_out"]["buffer.pixels"]["bytes"], 0);
}

// A query of another width needs its projection; the cached queries are the data set's.
TEST(Export, HoldsTheQueryProjectionAndNoCaches) {
  const std::string folder = fresh_folder("export_query");
  const std::string run =
      run_of("l2p", folder,
             "efficiency: {query_backbone: {name: vit_tiny_patch16_224, weights: random}}\n");
  export_model({run, folder + "/out", false});
  const Tensors checkpoint = checkpoint_of(run), exported = tensors_in(learned(folder + "/out"));
  ASSERT_EQ(checkpoint.count("learner.efficiency.test_queries"), 1U) << "there is a cache";
  ASSERT_EQ(exported.count("query.projection"), 1U);
  EXPECT_TRUE(
      same_bits(exported.at("query.projection"), checkpoint.at("learner.efficiency.projection")));
  std::set<std::string> names;
  for (const auto& [name, tensor] : exported) names.insert(name);
  EXPECT_EQ(names, (std::set<std::string>{"head.weight", "head.bias", "prompt", "prompt_key",
                                          "query.projection"}));
  const auto model = read_json(folder + "/out/" + kModelFile);
  EXPECT_EQ(model["query_backbone"]["name"], "vit_tiny_patch16_224");
}

std::string refusal(const ExportOptions& options) {
  try {
    export_model(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Export, RefusesAFolderThatIsNotEmptyAndWhatIsNoRun) {
  const std::string folder = fresh_folder("export_refused"), run = run_of("ncm", folder);
  std::filesystem::create_directories(folder + "/full");
  write_text(folder + "/full/mine.txt", "mine");
  EXPECT_NE(refusal({run, folder + "/full"}).find("not empty"), std::string::npos);
  EXPECT_EQ(read_text(folder + "/full/mine.txt"), "mine");
  EXPECT_FALSE(std::filesystem::exists(learned(folder + "/full")));
  EXPECT_NE(refusal({folder + "/full", folder + "/new"}).find("holds no checkpoint"),
            std::string::npos);
  // Weights are safetensors, too.
  write_safetensors(folder + "/w.safetensors", {{"a", torch::zeros({1})}});
  EXPECT_NE(refusal({folder + "/w.safetensors", folder + "/new"}).find("not a checkpoint"),
            std::string::npos);
  write_safetensors(folder + "/odd.safetensors", {{"a", torch::zeros({1})}}, {{"rep", "{}"}});
  EXPECT_NE(refusal({folder + "/odd.safetensors", folder + "/new"}).find("not a checkpoint"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder + "/new"));
}

}  // namespace
}  // namespace rep
