// rep predict: what a finished run's model says of files is what the run's own test said.
#include <cmath>

#include "tests/jpeg_bytes.h"
#include "tests/run_command.h"
#include "tests/synthetic_files.h"
#include "tests/vit_nano_file.h"

namespace rep {
namespace {

using nlohmann::json;

// What rep predict --json prints, an object a line; stderr is left out.
std::vector<json> predicted(const std::string& arguments) {
  const Finished run = rep_command("predict " + arguments + " --json 2>/dev/null");
  std::vector<json> lines;
  std::istringstream text(run.output);
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  return lines;
}

std::string folder_of(const std::string& path) {
  return std::filesystem::path(path).parent_path().filename();
}

// Right answers among the predictions, by task of the result.
std::vector<int64_t> hits_by_task(const std::vector<json>& lines, const json& result) {
  std::vector<int64_t> hits;
  for (const json& task : result.at("tasks")) {
    const std::vector<std::string> names = task.at("class_names");
    int64_t count = 0;
    for (const json& line : lines) {
      const std::string own = folder_of(line.at("path"));
      const std::string name = own.substr(own.find(' ') + 1);
      if (std::find(names.begin(), names.end(), name) == names.end()) continue;
      count += line.at("top").at(0).at("class") == name;
    }
    hits.push_back(count);
  }
  return hits;
}

std::vector<int64_t> hits_in_last_row(const json& result) {
  std::vector<int64_t> hits;
  const json& row = result.at("accuracy").at("class_incremental").back();
  for (size_t i = 0; i < row.size(); ++i) {
    const double images = result.at("tasks").at(i).at("test_images");
    hits.push_back(std::llround(row.at(i).get<double>() * images / 100));
  }
  return hits;
}

int64_t sum(const std::vector<int64_t>& counts) {
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  return total;
}

void expect_same_hits(const std::string& run, const std::string& images, int64_t count,
                      const std::string& name) {
  const json result = read_json(run + "/result.json");
  const std::vector<json> lines = predicted(run + " " + images + " --top 1");
  EXPECT_EQ(static_cast<int64_t>(lines.size()), count) << name;
  const std::vector<int64_t> hits = hits_by_task(lines, result);
  EXPECT_EQ(hits, hits_in_last_row(result)) << name;
  EXPECT_GT(sum(hits), 0) << name;
}

constexpr char kTwentyClasses[] =
    "{name: synthetic, classes: 20, train_per_class: 8, test_per_class: 50, difficulty: 0.3}";

struct Model {
  const char* name;
  const char* yaml;
};

class ThousandImages : public ::testing::TestWithParam<Model> {};

TEST_P(ThousandImages, AreClassifiedAsInTheRunsOwnTest) {
  const std::string folder = fresh_folder(std::string("predict_") + GetParam().name);
  const std::string config = write_text(
      folder + "/c.yaml", std::string("dataset: ") + kTwentyClasses +
                              "\nstream: {tasks: 4, class_order: seed}\n"
                              "backbone: {name: vit_nano, weights: random, normalise: half}\n"
                              "train: {epochs: 2, batch_size: 16, optimizer: {lr: 0.01}}\n"
                              "threads: 1\n" +
                              GetParam().yaml);
  const Finished run = rep_command("run " + config + " -q --output " + folder + "/run");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  write_images(*open(kTwentyClasses, Split::kTest), folder + "/images", 0, 20);
  expect_same_hits(folder + "/run", folder + "/images", 1000, GetParam().name);
}

INSTANTIATE_TEST_SUITE_P(
    Models, ThousandImages,
    ::testing::Values(Model{"l2p", "method: l2p\n"}, Model{"dualprompt", "method: dualprompt\n"},
                      Model{"ncm", "method: ncm\n"},
                      Model{"rep_l2p",
                            "method: l2p\nefficiency: {query_backbone: {name: vit_nano, weights: "
                            "random}, token_merging: {kind: atom, n: 4}, layer_dropping: {kind: "
                            "ald, decay: 0.05}}\n"}),
    [](const auto& test) { return test.param.name; });

TEST(EveryMethod, PredictsAsItWasTested) {
  const std::string folder = fresh_folder("predict_every");
  write_images(*open("{name: synthetic, classes: 6, test_per_class: 4}", Split::kTest),
               folder + "/images", 0, 6);
  const json listed = json::parse(rep_command("list methods --json").output);
  ASSERT_GT(listed.at("methods").size(), 20u);
  for (const json& method : listed.at("methods")) {
    const std::string name = method.at("name"), out = folder + "/" + name;
    std::string text = small_experiment(name);
    text = edited(text, "epochs: 3", "epochs: 1");
    const std::string config = write_text(folder + "/" + name + ".yaml", text);
    const Finished run = rep_command("run " + config + " -q --output " + out);
    ASSERT_EQ(run.exit_code, 0) << run.output;
    expect_same_hits(out, folder + "/images", 24, name);
  }
}

// A run of ncm on two folders of pictures; what it takes a second.
std::string run_on_folders(const std::string& folder, const std::string& options = "",
                           const std::string& weights = "random") {
  for (const char* name : {"cats/1.png", "cats/2.png", "cats/3.png", "dogs/1.png", "dogs/2.png"}) {
    put(folder + "/photos/" + name, picture(40, 30, static_cast<uint8_t>(name[0] + name[5])));
  }
  const std::string config =
      write_text(folder + "/c.yaml", "dataset: {name: image_folder, root: " + folder +
                                         "/photos, test_share: 0.2" + options +
                                         "}\nstream: {tasks: 1}\nmethod: ncm\n"
                                         "backbone: {name: vit_nano, weights: " +
                                         weights + "}\n");
  const Finished run = rep_command("run " + config + " -q --output " + folder + "/run");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  return folder + "/run";
}

TEST(Predict, TakesAPictureOfAnySizeAndFormat) {
  const std::string folder = fresh_folder("predict_formats"), run = run_on_folders(folder);
  const Image photo = picture(427, 640, 9);
  write_png(folder + "/a.png", photo);
  std::ofstream(folder + "/a.ppm", std::ios::binary)
      << "P6\n640 427\n255\n"
      << std::string(photo.pixels.begin(), photo.pixels.end());
  // One at a time: an image's place in its batch moves the last bits of sums.
  const auto lines = predicted(run + " " + folder + "/a.png " + folder + "/a.ppm --batch 1");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].at("path"), folder + "/a.png");
  EXPECT_EQ(lines[0].at("top"), lines[1].at("top"));
  double total = 0;
  for (const json& one : lines[0].at("top")) total += one.at("probability").get<double>();
  EXPECT_NEAR(total, 1, 1e-12);  // both classes are among the five most probable
  EXPECT_GE(lines[0].at("top").at(0).at("probability"), lines[0].at("top").at(1).at("probability"));
  const Finished text = rep_command("predict " + run + " " + folder + "/a.png --top 1");
  const std::string first = lines[0].at("top").at(0).at("class");
  EXPECT_EQ(text.output.rfind(folder + "/a.png\t" + first + "\t0.", 0), 0u) << text.output;
  EXPECT_EQ(std::count(text.output.begin(), text.output.end(), '\n'), 1) << text.output;
}

// The JPEG file with an EXIF tag that says: turn it by 90 degrees.
std::string turned_jpeg(const std::vector<uint8_t>& jpeg) {
  const std::string exif("Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
                         32);
  std::string file(jpeg.begin(), jpeg.end());
  return file.substr(0, 2) + std::string("\xFF\xE1\0", 3) + static_cast<char>(exif.size() + 2) +
         exif + file.substr(2);
}

TEST(Predict, TurnsAPhotoAsTheRunWasConfigured) {
  const std::string folder = fresh_folder("predict_exif");
  const auto jpeg = testing::encode_jpeg({"plain"}, picture(60, 90, 3));
  std::ofstream(folder + "/plain.jpg", std::ios::binary)
      .write(reinterpret_cast<const char*>(jpeg.data()), static_cast<std::streamsize>(jpeg.size()));
  std::ofstream(folder + "/turned.jpg", std::ios::binary) << turned_jpeg(jpeg);
  write_png(folder + "/upright.png", read_image(folder + "/turned.jpg"));
  const std::string files =
      " " + folder + "/plain.jpg " + folder + "/turned.jpg " + folder + "/upright.png --batch 1";
  const auto applied = predicted(run_on_folders(fresh_folder("predict_exif_apply")) + files);
  ASSERT_EQ(applied.size(), 3u);
  EXPECT_EQ(applied[1].at("top"), applied[2].at("top"));
  EXPECT_NE(applied[1].at("top"), applied[0].at("top"));
  const auto ignored = predicted(
      run_on_folders(fresh_folder("predict_exif_ignore"), ", exif_orientation: ignore") + files);
  ASSERT_EQ(ignored.size(), 3u);
  EXPECT_EQ(ignored[1].at("top"), ignored[0].at("top"));
}

TEST(Predict, SaysWhatIsMissingOrBrokenAndDoesTheOthers) {
  const std::string folder = fresh_folder("predict_faults"), run = run_on_folders(folder);
  std::filesystem::create_directories(folder + "/empty");
  write_text(folder + "/broken.png", "this is text");
  const std::string good = folder + "/photos/cats/1.png";
  const std::string files = " " + folder + "/gone.png " + good + " " + folder + "/broken.png " +
                            folder + "/empty " + folder + "/photos/dogs --batch 2";
  const Finished text = rep_command("predict " + run + files);
  EXPECT_EQ(text.exit_code, 1);
  for (const std::string& sentence : {"cannot read '" + folder + "/gone.png'",
                                      folder + "/broken.png", folder + "/empty: no image files"}) {
    EXPECT_NE(text.output.find("rep: " + sentence), std::string::npos) << text.output;
  }
  EXPECT_NE(text.output.find("3 images or folders could not be read"), std::string::npos)
      << text.output;
  const auto lines = predicted(run + files);
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0].at("path"), folder + "/empty");
  EXPECT_TRUE(lines[0].contains("error"));
  EXPECT_TRUE(lines[1].contains("error"));
  EXPECT_EQ(lines[2].at("path"), good);
  EXPECT_TRUE(lines[2].contains("top"));
  EXPECT_TRUE(lines[3].contains("error"));
  EXPECT_EQ(lines[5].at("path"), folder + "/photos/dogs/2.png");
  const auto alone = predicted(run + " " + good);
  EXPECT_EQ(alone.at(0).at("top").at(0).at("class"), lines[2].at("top").at(0).at("class"));

  // Fields are what tabs separate, and a line is an image, whatever its name.
  const std::string odd = folder + "/a\tb\nc.png";
  std::filesystem::copy(good, odd);
  const Finished named = rep_command("predict " + run + " '" + odd + "' --top 1 2>/dev/null");
  EXPECT_EQ(named.output.rfind(folder + "/a\\tb\\nc.png\t", 0), 0u) << named.output;
  EXPECT_EQ(std::count(named.output.begin(), named.output.end(), '\t'), 2) << named.output;
}

TEST(Predict, NeedsTheWeightsByContentAndNotTheTrainingPictures) {
  const std::string folder = fresh_folder("predict_moved");
  const std::string weights = vit_nano_file(folder + "/w.safetensors", 1);
  const std::string run = run_on_folders(folder, "", weights), photo = folder + "/photo.png";
  put(photo, picture(50, 50, 4));
  const auto before = predicted(run + " " + photo);
  ASSERT_EQ(before.size(), 1u);
  std::filesystem::remove_all(folder + "/photos");
  std::filesystem::rename(weights, folder + "/moved.safetensors");
  const Finished lost = rep_command("predict " + run + " " + photo);
  EXPECT_EQ(lost.exit_code, 1);
  EXPECT_NE(lost.output.find("--set backbone.weights=FILE"), std::string::npos) << lost.output;
  const std::string here = " --set backbone.weights=";
  EXPECT_EQ(predicted(run + " " + photo + here + folder + "/moved.safetensors"), before);
  const std::string other = vit_nano_file(folder + "/other.safetensors", 2);
  const Finished refused = rep_command("predict " + run + " " + photo + here + other);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.output.find("other weights than"), std::string::npos) << refused.output;
}

TEST(Predict, RefusesWhatIsNoFinishedRun) {
  const std::string folder = fresh_folder("predict_refused"), run = run_on_folders(folder);
  const std::string photo = " " + folder + "/photos/cats/1.png";
  const auto says = [&](const std::string& arguments, const std::string& sentence) {
    const Finished refused = rep_command("predict " + arguments);
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.output.find(sentence), std::string::npos) << refused.output;
    EXPECT_EQ(std::count(refused.output.begin(), refused.output.end(), '\n'), 1) << refused.output;
  };
  says(run + photo + " --set train.epochs=9", "train.epochs was 5 and is 9");
  says(folder + photo, "no result.json");
  json result = read_json(run + "/result.json");
  result["complete"] = false;
  std::filesystem::copy(run, folder + "/half", std::filesystem::copy_options::recursive);
  write_text(folder + "/half/result.json", result.dump());
  says(folder + "/half" + photo, "not complete (1 task is learned)");
  write_text(folder + "/half/result.json", "{}");
  says(folder + "/half" + photo, "is not a result of rep run");
  const std::string deep(100000, '['), ends(100000, ']');
  write_text(folder + "/half/result.json", R"({"complete": true, "config": )" + deep + ends + "}");
  says(folder + "/half" + photo, "nested too deeply");
  result["complete"] = true;
  result["tasks"] = json::array();
  write_text(folder + "/half/result.json", result.dump());
  says(folder + "/half" + photo, "is not a result of rep run");
  std::filesystem::remove_all(run + "/checkpoint");
  says(run + photo, "checkpoint is what it learned");
}

TEST(Predict, SaysWhereAPredictionDependsOnItsBatch) {
  const std::string folder = fresh_folder("predict_batchwise");
  const std::string config =
      write_text(folder + "/c.yaml",
                 edited(small_experiment("l2p"), "name: l2p", "name: l2p, selection: batchwise"));
  ASSERT_EQ(rep_command("run " + config + " -q --output " + folder + "/run").exit_code, 0);
  put(folder + "/a.png");
  const Finished run = rep_command("predict " + folder + "/run " + folder + "/a.png");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_NE(run.output.find("share its batch"), std::string::npos) << run.output;
}

}  // namespace
}  // namespace rep
