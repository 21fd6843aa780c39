// What the documents and --help tell people to type works: every command in README.md and docs/ is
// run, on tiny settings in a scratch folder, or is in the list of those that cannot be.
#include <yaml-cpp/yaml.h>

#include <regex>
#include <set>

#include "data/image.h"
#include "tests/run_command.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

/// Commands that begin so are not run here, and why. Each of them stands in a document.
const std::vector<std::pair<std::string, std::string>> kNotRun{
    {"scripts/quickstart.sh", "installs and builds; minutes"},
    {"scripts/test.sh", "runs this test"},
    {"scripts/fetch.sh", "downloads"},
    {"scripts/setup.sh", "installs and builds; minutes"},
    {"cmake --install", "install_test"},
    {"cp -r /usr/share/rep/configs", "install_test"},
    {"scripts/package.sh", "has a --test of its own"},
    {"sudo apt-get install", "scripts/package.sh --test"},
    {"source <(rep completion bash)", "completion_test"},
    {"scripts/bundle.sh", "minutes; has a --test of its own"},
    {"scripts/reproduce.sh", "hours, and data"},
    {"scripts/gpu_check.sh", "needs a GPU"},
    {"scripts/bench.sh", "minutes on a quiet machine"},
    {"ONEDNN_MAX_CPU_ISA=AVX2 scripts/bench.sh", "minutes on a quiet machine"},
    {"scripts/bench_pillow.py", "needs Pillow and photographs"},
    {"scripts/bench_published.py", "needs checkouts of published code and PyTorch"},
    {"rep sweep configs/cifar100/l2p.yaml configs/cifar100/rep-l2p.yaml --seeds 1,2,3 --engine "
     "slurm",
     "needs a SLURM: slurm_test"},
    {"torchrun", "needs PyTorch: world_test starts processes itself"},
    {"srun", "needs a SLURM: slurm_test"},
    {"mpirun", "needs MPI: world_test starts processes itself"},
    {"podman", "needs a container engine: scripts/check_packages.sh"},
    {"apptainer", "needs a container engine: scripts/check_packages.sh"},
    {"jq", "another program"},
};

/// Lines of code that are no commands.
bool is_not_a_command(const std::string& line) {
  static const std::regex kShown(
      "[a-z-]+/.*\\*\\.jpg.*|accuracy after task .*|[a-z ]+  +[0-9.]+ .*|--set .*|stream: .*");
  return std::regex_match(line, kShown);
}

std::string trimmed(const std::string& line) {
  const size_t first = line.find_first_not_of(' '), last = line.find_last_not_of(' ');
  return first == std::string::npos ? "" : line.substr(first, last - first + 1);
}

/// Lines of a page's code, but for YAML, each with those that it goes on in (a backslash at its
/// end).
std::vector<std::string> code_of(const std::string& page) {
  std::istringstream lines(page);
  std::vector<std::string> code;
  std::string line, whole, fence;
  bool fenced = false, indented = false, blank = true;
  while (std::getline(lines, line)) {
    if (trimmed(line).rfind("```", 0) == 0) {
      fenced = !fenced;
      fence = trimmed(line);
      continue;
    }
    indented = line.rfind("    ", 0) == 0 && (blank || indented);
    blank = trimmed(line).empty();
    if (blank || !(fenced || indented) || (fenced && fence == "```yaml")) continue;
    whole += trimmed(line);
    if (whole.back() == '\\') {
      whole.pop_back();
      continue;
    }
    code.push_back(whole);
    whole.clear();
  }
  return code;
}

/// A shipped configuration with its method and its REP, on so little that a run takes a second; its
/// data only where they are in `folder`.
void make_tiny(const std::string& path, const std::string& folder) {
  YAML::Node config = YAML::LoadFile(path);
  const YAML::Node root = std::as_const(config)["dataset"]["root"];
  const bool has_data = root.IsDefined() && fs::exists(folder + "/" + root.Scalar());
  if (!has_data) {
    config["dataset"] =
        YAML::Load("{name: synthetic, classes: 100, train_per_class: 2, test_per_class: 1}");
  }
  config["train"]["epochs"] = 1;
  config["train"]["iterations"] = 1;
  config["train"]["batch_size"] = 8;
  config["threads"] = 1;
  if (path.find("pretrain") != std::string::npos) {
    config["backbone"] = YAML::Load("{name: vit_nano}");
  } else {
    if (!has_data) config["stream"] = YAML::Load("{tasks: 5}");
    config["backbone"] = YAML::Load("{name: vit_nano, weights: random}");
    if (config["efficiency"].IsDefined()) config["efficiency"].remove("query_backbone");
  }
  std::ofstream(path) << config << "\n";
}

/// A folder in which documents' commands run: shipped configurations made tiny, and what the
/// placeholders stand for. Made once.
const std::string& scratch() {
  static const std::string folder = [] {
    const std::string made = fresh_folder("docs");
    fs::copy(REP_SOURCE_DIR "/configs", made + "/configs", fs::copy_options::recursive);
    Image image = Image::make(8, 8);
    for (const char* name :
         {"photos/cats", "photos/dogs", "photos/birds", "more-photos/foxes", "more-photos/wolves",
          "FOLDER/owls", "new", "new/more", "pictures/clipart/bird", "pictures/clipart/house",
          "pictures/real/bird", "pictures/real/house"}) {
      fs::create_directories(made + "/" + name);
      for (int i = 0; i < 10; ++i) {
        image.pixels[0] = static_cast<uint8_t>(i);  // no two alike
        write_png(made + "/" + name + "/" + std::to_string(i) + ".png", image);
      }
    }
    fs::copy(made + "/new/0.png", made + "/new/1.jpg");  // known by its bytes
    fs::copy(made + "/new/0.png", made + "/IMAGE");
    for (const auto& entry : fs::recursive_directory_iterator(made + "/configs")) {
      if (entry.path().extension() == ".yaml") make_tiny(entry.path().string(), made);
    }
    fs::create_directory(made + "/results");
    fs::copy(REP_SOURCE_DIR "/results/published.yaml", made + "/results/published.yaml");
    fs::copy(made + "/configs/cifar100/l2p.yaml", made + "/CONFIG.yaml");
    fs::create_directory(made + "/weights");
    fs::copy(made + "/configs/photos.yaml", made + "/photos.yaml");
    const Finished ready =
        shell_command("cd " + made +
                      " && rep=" REP_EXECUTABLE
                      " && $rep pretrain configs/quickstart-pretrain.yaml -q --output "
                      "weights/vit_tiny.safetensors"
                      " && cp weights/vit_tiny.safetensors FILE && cp FILE weights/FILE"
                      " && $rep run CONFIG.yaml -q --output DIR && $rep run photos.yaml -q "
                      "--output results/photos"
                      " && $rep run configs/quickstart.yaml -q --output results/quickstart"
                      " && cp -r results/photos RUN && cp -r results ready");
    EXPECT_EQ(ready.exit_code, 0) << ready.output;
    return made;
  }();
  return folder;
}

/// The scratch folder's results as they were at first, for a reader who begins here.
void begin_anew() {
  for (const char* made : {"/results", "/models"}) fs::remove_all(scratch() + made);
  fs::copy(scratch() + "/ready", scratch() + "/results", fs::copy_options::recursive);
}

/// As people type it, but with the smallest ViT, and `rep` the built program.
Finished run_as_typed(const std::string& command) {
  std::string typed =
      std::regex_replace(command, std::regex("vit_(tiny|base|large)_patch16_224"), "vit_nano");
  typed = std::regex_replace(typed, std::regex("pretrain CONFIG.yaml"),
                             "pretrain configs/quickstart-pretrain.yaml");
  return shell_command("cd " + scratch() + " && export PATH=" +
                       fs::path(REP_EXECUTABLE).parent_path().string() + ":$PATH && " + typed);
}

/// "rep run CONFIG.yaml...   what it does" -> "rep run CONFIG.yaml".
std::string command_in(const std::string& line) {
  return std::regex_replace(line.substr(0, line.find("  ")), std::regex("\\.\\.\\.$"), "");
}

std::vector<std::string> pages() {
  std::vector<std::string> pages{"README.md"};
  for (const auto& entry : fs::directory_iterator(REP_SOURCE_DIR "/docs")) {
    if (entry.path().extension() == ".md")
      pages.push_back("docs/" + entry.path().filename().string());
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

class Page : public ::testing::TestWithParam<std::string> {};

TEST_P(Page, HasCommandsThatRun) {
  begin_anew();
  for (const std::string& line : code_of(read_text(REP_SOURCE_DIR "/" + GetParam()))) {
    if (is_not_a_command(line)) continue;
    const bool listed = std::any_of(kNotRun.begin(), kNotRun.end(), [&](const auto& entry) {
      return line.rfind(entry.first, 0) == 0;
    });
    if (listed) continue;
    const std::string command = command_in(line);
    const Finished run = run_as_typed(command);
    EXPECT_EQ(run.exit_code, 0) << command << "\n" << run.output;
  }
}

INSTANTIATE_TEST_SUITE_P(Documents, Page, ::testing::ValuesIn(pages()), [](const auto& test) {
  return std::regex_replace(test.param, std::regex("[^A-Za-z]"), "_");
});

TEST(Documents, ListOnlyCommandsThatTheyHave) {
  std::string code;
  for (const std::string& page : pages()) {
    for (const std::string& line : code_of(read_text(REP_SOURCE_DIR "/" + page))) {
      code += "\n" + line;
    }
  }
  for (const auto& [command, reason] : kNotRun) {
    EXPECT_NE(code.find("\n" + command), std::string::npos) << command << " stands nowhere";
  }
}

/// Digits and the prefixes of units, of which the length of a run decides.
std::string without_numbers(const std::string& line) {
  return std::regex_replace(std::regex_replace(line, std::regex("[0-9.]+"), "#"),
                            std::regex("# +([kMGT]?)(B|FLOP)\\b"), "# $2");
}

TEST(Documents, ShowTheQuickstartsOutputAsItIs) {
  const Finished run = run_as_typed("rep run configs/quickstart.yaml --output results/shown");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  std::set<std::string> printed;
  std::istringstream lines(std::regex_replace(run.output, std::regex("\r"), "\n"));
  for (std::string line; std::getline(lines, line);) {
    printed.insert(std::regex_replace(without_numbers(trimmed(line)), std::regex("  +"), " "));
  }
  int64_t shown = 0;
  for (const std::string& line : code_of(read_text(REP_SOURCE_DIR "/README.md"))) {
    if (!is_not_a_command(line)) continue;
    ++shown;
    EXPECT_EQ(printed.count(std::regex_replace(without_numbers(line), std::regex("  +"), " ")), 1U)
        << line << "\n"
        << run.output;
  }
  EXPECT_GE(shown, 4);
}

/// The commands that `rep --help` names, and "" for the program itself.
std::vector<std::string> commands() {
  std::vector<std::string> names{""};
  std::istringstream lines(rep_command("--help").output);
  bool on = false;
  for (std::string line; std::getline(lines, line);) {
    if (on && line.rfind("  ", 0) == 0) names.push_back(line.substr(2, line.find(' ', 2) - 2));
    if (on && line.empty()) break;
    on = on || line == "Subcommands:";
  }
  return names;
}

TEST(Help, FitsOnAScreen) {
  EXPECT_GE(commands().size(), 12U);
  for (const std::string& command : commands()) {
    const Finished help = rep_command(command + " --help");
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_LE(std::count(help.output.begin(), help.output.end(), '\n'), 40) << help.output;
  }
}

TEST(Help, HasExamplesThatRunAsWritten) {
  begin_anew();
  const std::regex example("(?:Example: |  +)(rep .*)");
  std::vector<std::string> examples;
  for (const std::string& command : commands()) {
    std::istringstream lines(rep_command(command + " --help").output);
    const size_t before = examples.size();
    for (std::string line; std::getline(lines, line);) {
      std::smatch found;
      if (std::regex_match(line, found, example)) examples.push_back(found[1]);
    }
    EXPECT_GT(examples.size(), before) << command << " --help has no example";
  }
  // A report is of what a sweep left.
  std::stable_partition(examples.begin(), examples.end(), [](const std::string& command) {
    return command.rfind("rep report", 0) != 0;
  });
  for (const std::string& command : examples) {
    const Finished run = run_as_typed(command);
    EXPECT_EQ(run.exit_code, 0) << command << "\n" << run.output;
  }
}

TEST(Help, IsWhatACommandWithoutItsFileAnswers) {
  const Finished run = rep_command("run");
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(run.output.rfind("rep: run: config is required; type, for example: rep run "
                             "configs/quickstart.yaml",
                             0),
            0U)
      << run.output;
  EXPECT_NE(rep_command("sweep").output.find("type, for example: rep sweep "), std::string::npos);
}

}  // namespace
}  // namespace rep
