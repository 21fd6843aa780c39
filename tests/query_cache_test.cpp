// efficiency.query_cache: runs share the queries of images that have one view, and no number moves.
#include <csignal>

#include "tests/image_sets.h"
#include "tests/run_command.h"
#include "tests/vit_nano_file.h"

namespace rep {
namespace {

using nlohmann::json;

struct Setting {
  std::string folder, weights, shared;
  explicit Setting(const std::string& name)
      : folder(fresh_folder(name)),
        weights(vit_nano_file(folder + "/w.safetensors", 1)),
        shared(folder + "/shared") {}

  std::string config(const std::string& name, const std::string& text) const {
    return write_text(folder + "/" + name + ".yaml",
                      "dataset: {name: synthetic, classes: 6, train_per_class: 20, "
                      "test_per_class: 5}\nstream: {tasks: 3}\nthreads: 1\n"
                      "backbone: {name: vit_nano, weights: " +
                          weights + "}\n" + text);
  }
  json run(const std::string& name, const std::string& text, const std::string& more = "") const {
    const std::string out = folder + "/" + name;
    const Finished done = rep_command("run " + config(name, text) + " -q --output " + out + more);
    EXPECT_EQ(done.exit_code, 0) << done.output;
    return read_json(out + "/result.json");
  }
  std::string share() const { return " --set efficiency.query_cache=" + shared; }
};

constexpr char kNcm[] = "method: ncm\ntrain: {epochs: 1, augment: none}\n";
constexpr char kEr[] = "method: {name: er, buffer_size: 12}\ntrain: {epochs: 2, augment: none}\n";

// All that a result says but the seconds, and where queries came from.
json numbers(json result) {
  result = comparable(std::move(result));
  for (const char* key : {"config", "identity", "name"}) result.erase(key);
  result["inputs"].erase("queries_from_files");
  result["cost"]["total"].erase("peak_tensor_bytes");
  for (json& task : result["cost"]["per_task"]) task.erase("peak_tensor_bytes");
  return result;
}

TEST(QueryCache, SharesFeaturesBetweenRunsAndMovesNoNumber) {
  const Setting setting("query_cache");
  const json alone = setting.run("ncm_alone", kNcm), er_alone = setting.run("er_alone", kEr);
  const json first = setting.run("first", kNcm, setting.share());
  EXPECT_FALSE(first["inputs"].contains("queries_from_files"));
  const json again = setting.run("again", kNcm, setting.share());
  EXPECT_EQ(again["inputs"]["queries_from_files"], (json{{"train", 120}, {"test", 30}}));
  const json er = setting.run("er", kEr, setting.share());
  EXPECT_EQ(er["inputs"]["queries_from_files"], (json{{"train", 120}, {"test", 30}}));
  EXPECT_EQ(numbers(first), numbers(alone));
  EXPECT_EQ(numbers(again), numbers(alone));
  EXPECT_EQ(numbers(er), numbers(er_alone));
  EXPECT_EQ(first["identity"], again["identity"]);
  EXPECT_EQ(alone["identity"], again["identity"]);
}

TEST(QueryCache, KeepsOtherWeightsAndOtherImagesApart) {
  const Setting setting("query_cache_apart");
  setting.run("first", kNcm, setting.share());
  const std::string other = vit_nano_file(setting.folder + "/other.safetensors", 2);
  for (const std::string& more :
       {" --set backbone.weights=" + other, std::string(" --set dataset.data_seed=9"),
        std::string(" --set precision=bf16"), std::string(" --set backbone.normalise=imagenet")}) {
    const json result = setting.run("second", kNcm, setting.share() + more);
    EXPECT_FALSE(result["inputs"].contains("queries_from_files")) << more;
    std::filesystem::remove_all(setting.folder + "/second");
  }
}

// The fingerprint is of the files, which are the same.
TEST(QueryCache, KeepsOtherWaysToReadTheSameFilesApart) {
  const Setting setting("query_cache_read");
  for (const char* split : {"train", "test"}) {
    for (const char* name : {"ant", "bee", "cat"}) {
      for (uint8_t i = 0; i < 3; ++i) {
        put(setting.folder + "/" + split + "/" + name + "/" + std::to_string(i) + ".png",
            picture(40, 40, static_cast<uint8_t>(name[0] + split[1] + i)));
      }
    }
  }
  const auto reused = [&](const std::string& name, const std::string& more) {
    const std::string data = " --set 'dataset={name: image_folder, root: " + setting.folder + "}'";
    const json result = setting.run(name, kNcm, data + setting.share() + more);
    return result["inputs"].contains("queries_from_files");
  };
  EXPECT_FALSE(reused("first", ""));
  EXPECT_FALSE(reused("unturned", " --set dataset.exif_orientation=ignore"));
  EXPECT_TRUE(reused("again", " --set name=again"));
}

TEST(QueryCache, SaysThatRandomWeightsShareNothing) {
  const Setting setting("query_cache_random");
  const Finished run =
      rep_command("run " + setting.config("c", kNcm) + " --output " + setting.folder +
                  "/out --set backbone.weights=random" + setting.share());
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_NE(run.output.find("note: efficiency.query_cache: not used"), std::string::npos)
      << run.output;
  EXPECT_FALSE(std::filesystem::exists(setting.shared));
}

TEST(QueryCache, AResumedRunIsTheSameAndCountsEveryImageOnce) {
  const Setting setting("query_cache_resumed");
  const json whole = setting.run("whole", kEr);
  setting.run("first", kNcm, setting.share());
  const std::string out = setting.folder + "/stopped";
  const std::string config =
      setting.config("stopped", kEr + ("efficiency: {query_cache: " + setting.shared + "}\n"));
  EXPECT_EQ(signal_at_line(config, out, 1, SIGTERM), 130);
  const Finished resumed = rep_command("run " + config + " -q --resume --output " + out);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  const json result = read_json(out + "/result.json");
  EXPECT_EQ(numbers(result), numbers(whole));
  EXPECT_EQ(result["inputs"]["queries_from_files"], (json{{"train", 120}, {"test", 30}}));
}

TEST(QueryCache, RefusesAFolderThatCannotBeBeforeItTrains) {
  const Setting setting("query_cache_nowhere");
  write_text(setting.shared, "a file");
  const std::string out = setting.folder + "/out";
  const Finished refused = rep_command("run " + setting.config("c", kNcm) + " -q --output " + out +
                                       setting.share() + "/below");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_EQ(std::count(refused.output.begin(), refused.output.end(), '\n'), 1) << refused.output;
  EXPECT_FALSE(std::filesystem::exists(out + "/metrics.jsonl"));
}

TEST(QueryCache, RefusesADamagedFileInASentence) {
  const Setting setting("query_cache_damaged");
  setting.run("first", kNcm, setting.share());
  for (const auto& entry : std::filesystem::directory_iterator(setting.shared)) {
    std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) - 40);
  }
  const Finished refused = rep_command("run " + setting.config("refused", kNcm) + " -q --output " +
                                       setting.folder + "/refused" + setting.share());
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_EQ(std::count(refused.output.begin(), refused.output.end(), '\n'), 1) << refused.output;
  EXPECT_NE(refused.output.find(setting.shared), std::string::npos) << refused.output;
}

}  // namespace
}  // namespace rep
