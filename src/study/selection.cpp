#include "study/selection.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/json_file.h"
#include "study/sweep.h"

namespace rep {
namespace {

constexpr const char* kValidationKey = "stream.validation=";

/// A configuration and a choice of the grid, with its runs of all seeds.
struct Setting {
  std::string config;
  std::vector<std::string> overrides;
  std::vector<const SweepRun*> runs;
  std::vector<double> accuracies;  // of the runs
  bool chosen = false;
  double mean() const {
    double sum = 0;
    for (const double accuracy : accuracies) sum += accuracy;
    return sum / static_cast<double>(accuracies.size());
  }
};

/// average_accuracy of a finished run, whose accuracies are of `images`. Throws Error when there is
/// none.
double accuracy_of(const std::string& folder, const std::string& images) {
  const std::string path = folder + "/result.json";
  const Json json = read_json_file(path);
  const Json::json_pointer at("/metrics/average_accuracy");
  if (!json.is_object() || !json.contains(at) || !json[at].is_number()) {
    throw Error(path + ": has no average accuracy to choose by; remove its folder and repeat");
  }
  if (json.value("evaluated_on", Json("test")) != images) {
    throw Error(path + ": is not of " + images + " images; remove its folder and repeat");
  }
  return json[at].get<double>();
}

std::vector<Setting> settings_of(const std::vector<SweepRun>& runs, const std::string& output) {
  std::vector<Setting> settings;
  for (const SweepRun& run : runs) {
    auto found = std::find_if(settings.begin(), settings.end(), [&](const Setting& s) {
      return s.config == run.config && s.overrides == run.overrides;
    });
    if (found == settings.end()) {
      settings.push_back({run.config, run.overrides, {}, {}});
      found = settings.end() - 1;
    }
    found->runs.push_back(&run);
    found->accuracies.push_back(accuracy_of(output + "/" + run.directory, "validation"));
  }
  return settings;
}

void choose(std::vector<Setting>& settings) {
  std::map<std::string, Setting*> best;  // by configuration
  for (Setting& setting : settings) {
    Setting*& so_far = best[setting.config];
    if (!so_far || setting.mean() > so_far->mean()) so_far = &setting;
  }
  for (const auto& [config, setting] : best) setting->chosen = true;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : ", ") + text;
  return all;
}

std::string in_percent(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

std::string describe(const Setting& setting) {
  return setting.config + (setting.overrides.empty() ? "" : ": " + joined(setting.overrides));
}

Json settings_json(const std::vector<Setting>& settings) {
  Json all = Json::array();
  for (const Setting& setting : settings) {
    Json directories = Json::array();
    for (const SweepRun* run : setting.runs) directories.push_back(run->directory);
    all.push_back({{"config", setting.config},
                   {"overrides", setting.overrides},
                   {"runs", directories},
                   {"validation_accuracies", setting.accuracies},
                   {"validation_accuracy", setting.mean()},
                   {"chosen", setting.chosen}});
  }
  return all;
}

/// A table for people. `tested`: as in selection.json, empty before the test; `before`:
/// as tested_before() has it.
std::string as_markdown(const std::vector<Setting>& settings, const Json& tested,
                        const Json& before) {
  std::string text =
      "Chosen by the highest average accuracy on validation images, which were kept out of "
      "training; of each configuration one setting, of equals the first. ";
  if (before.empty()) {
    text += "No test image was opened before.";
  } else {
    text += "This is not the first look at the test images: earlier choices in this folder tested";
    for (const Json& run : before) {
      text += " `" + run["directory"].get<std::string>() + "` (" +
              in_percent(run["average_accuracy"].get<double>()) + " %)";
    }
    text += ".";
  }
  text += "\n\n| | configuration | setting | validation, % | runs |\n|---|---|---|---:|---:|\n";
  for (const Setting& setting : settings) {
    text += std::string("| ") + (setting.chosen ? "chosen" : "") + " | " + setting.config + " | " +
            joined(setting.overrides) + " | " + in_percent(setting.mean()) + " | " +
            std::to_string(setting.accuracies.size()) + " |\n";
  }
  if (tested.empty()) return text;
  text += std::string("\nThen trained on all training images and tested") +
          (before.empty() ? " once" : "") +
          ":\n\n| configuration | seed | test, % | folder |\n|---|---:|---:|---|\n";
  for (const Json& run : tested) {
    text += "| " + run["config"].get<std::string>() + " | " + run["seed"].dump() + " | " +
            in_percent(run["average_accuracy"].get<double>()) + " | " +
            run["directory"].get<std::string>() + " |\n";
  }
  return text;
}

void write(const std::string& output, const std::vector<Setting>& settings, const Json& tested,
           const Json& before) {
  const Json json{{"by", "average_accuracy"},
                  {"settings", settings_json(settings)},
                  {"tested", tested},
                  {"tested_before", before}};
  write_file_atomically(output + "/selection.json", to_text(json, 1) + "\n");
  write_file_atomically(output + "/selection.md", as_markdown(settings, tested, before));
}

/// The runs in this folder, but for `runs`, that have tested on test images, as earlier choices
/// did.
Json tested_before(const std::string& output, const std::vector<SweepRun>& runs) {
  std::map<std::string, double> tested;
  for (const auto& entry : std::filesystem::directory_iterator(output)) {
    const std::string directory = entry.path().filename().string();
    const std::string path = output + "/" + directory + "/result.json";
    const bool again = std::any_of(runs.begin(), runs.end(),
                                   [&](const SweepRun& run) { return run.directory == directory; });
    if (again || !std::filesystem::exists(path)) continue;
    const Json json = read_json_file(path);
    const Json::json_pointer at("/metrics/average_accuracy");
    if (!json.is_object() || json.value("evaluated_on", Json("test")) != "test") continue;
    if (json.contains(at) && json[at].is_number()) tested[directory] = json[at].get<double>();
  }
  Json before = Json::array();
  for (const auto& [directory, accuracy] : tested) {
    before.push_back({{"directory", directory}, {"average_accuracy", accuracy}});
  }
  return before;
}

/// The runs of the chosen settings, with all training images.
std::vector<SweepRun> plan_tests(const SweepOptions& options, const ExperimentReader& reader,
                                 const std::vector<Setting>& settings) {
  std::vector<SweepRun> tests;
  for (const Setting& setting : settings) {
    if (!setting.chosen) continue;
    SweepOptions one = options;
    one.on_validation = false;
    one.configs = {setting.config};
    one.grid.clear();
    one.set.clear();
    for (const std::string& text : setting.overrides) {
      if (text.rfind(kValidationKey, 0) != 0) one.set.push_back(text);
    }
    one.set.push_back(std::string(kValidationKey) + "0");
    for (SweepRun& run : plan_sweep(one, reader)) tests.push_back(std::move(run));
  }
  return tests;
}

}  // namespace

void select_and_test(const SweepOptions& options, const ExperimentReader& reader,
                     Progress& progress) {
  SweepOptions choosing = options;
  choosing.on_validation = true;
  const std::vector<SweepRun> runs = plan_sweep(choosing, reader);
  run_sweep(choosing, runs, progress);

  std::vector<Setting> settings = settings_of(runs, options.output);
  choose(settings);
  const std::vector<SweepRun> tests = plan_tests(options, reader, settings);
  const Json before = tested_before(options.output, tests);
  write(options.output, settings, Json::array(), before);
  for (const Setting& setting : settings) {
    progress.info((setting.chosen ? "chosen   " : "         ") + in_percent(setting.mean()) +
                  " % on validation images: " + describe(setting));
  }
  progress.info(before.empty() ? "tested once, with all training images:"
                               : "tested, not for the first time in this folder:");
  run_sweep(options, tests, progress);

  Json tested = Json::array();
  for (const SweepRun& run : tests) {
    const double accuracy = accuracy_of(options.output + "/" + run.directory, "test");
    tested.push_back({{"config", run.config},
                      {"overrides", run.overrides},
                      {"seed", run.seed},
                      {"directory", run.directory},
                      {"average_accuracy", accuracy}});
    progress.info("tested   " + in_percent(accuracy) + " % on test images: " + run.directory);
  }
  write(options.output, settings, tested, before);
}

}  // namespace rep
