#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/human.h"
#include "core/error.h"
#include "core/offline_result.h"
#include "data/completeness.h"
#include "data/preview.h"
#include "data/stream.h"
#include "run/loops.h"
#include "run/pretrain.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/device.h"

namespace rep {

namespace {

// What the split holds and, where it was published whole, what it lacks.
std::string describe_split(const Config& config, const Dataset& dataset, Split split) {
  const std::string name = split == Split::kTrain ? "training" : tested_images(config);
  const Contents contents = contents_of(dataset);
  std::string text = "  " + name + ": " + std::to_string(contents.images) + " images of " +
                     std::to_string(contents.classes) + " classes, " +
                     human(static_cast<double>(contents.bytes)) + "B, fingerprint " +
                     dataset.fingerprint() + "\n";
  const auto official = Registry<DatasetKind>::get().at(config.dataset.name).value.official;
  const char* const limit = split == Split::kTrain ? "limit_train" : "limit_test";
  if (!official || config.dataset.effective.value(limit, int64_t{0}) > 0 ||
      config.stream.validation > 0) {
    return text;
  }
  const std::string note = missing_note(dataset, official(config.dataset, split), name);
  return note.empty() ? text : text + "  note: " + note + "\n";
}

// Decodes all images of both splits and names, a line each, those that are broken. Throws Error if
// any is.
void decode_all(const Scenario& scenario) {
  std::vector<std::string> faults = broken_images(*scenario.train);
  for (std::string& fault : broken_images(*scenario.test)) faults.push_back(std::move(fault));
  for (const std::string& fault : faults) std::cerr << "rep: " << fault << "\n";
  if (faults.empty()) return;
  throw Error("dataset: " + std::to_string(faults.size()) + " of " +
              std::to_string(scenario.train->size() + scenario.test->size()) +
              " images cannot be decoded; fetch those listed above again or remove them");
}

struct CheckOptions {
  std::vector<std::string> configs, set;
  std::string sheet;    // where a picture of the training images goes, "" for nowhere
  bool decode = false;  // every image
};

// Everything that a run does before its first step; throws what it would throw.
void check(const std::string& path, const CheckOptions& options) {
  const std::string& sheet = options.sheet;
  Config config = read_experiment(path, options.set);
  resolve_pretrained(config, nullptr);
  // Before the session, which would stop at the first missing file.
  if (options.decode) decode_all(open_scenario(config, torch::kCPU));
  const Session session = open_session(config);
  const Stream& stream = session.stream;
  if (!config.eval.offline_result.empty()) {
    read_offline_result(config.eval.offline_result, stream.classes(), tested_images(config));
  }
  int64_t steps = 0;
  for (const Task& task : stream.tasks) {
    steps += steps_of_task(config.train, static_cast<int64_t>(task.train.size()));
  }
  std::string details;
  for (const std::string& line : remarks(session.learner.inputs)) details += "  " + line + "\n";
  details += describe_split(config, *session.train, Split::kTrain) +
             describe_split(config, *session.test, Split::kTest);
  for (const std::string& note : session.notes) details += "  note: " + note + "\n";
  if (!sheet.empty()) {
    const Preview shown =
        preview(*session.train, session.learner.transform(config, /*train=*/false));
    write_png(sheet, shown.sheet);
    details += "  " + sheet + ": the first training images of each class";
    if (shown.classes_left_out > 0) {
      details += "; " + std::to_string(shown.classes_left_out) + " more classes are left out";
    }
    details += "\n";
  }
  std::cout << path << ": good; " << config.method.name << " on " << config.dataset.name << ", "
            << stream.tasks.size() << " tasks of " << stream.num_classes() << " classes, "
            << session.train->size() << " train and " << session.test->size() << " "
            << tested_images(config) << " images, " << steps << " steps\n"
            << details;
}

}  // namespace

void add_check_command(CLI::App& app) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App* command =
      app.add_subcommand("check", "Validate configuration, data and weights without training");
  command->footer("Example: rep check configs/cifar100/l2p.yaml configs/cifar100/rep-l2p.yaml");
  command->add_option("configs", options->configs, "Experiments (YAML)")->required();
  command->add_option("--set", options->set, "Override a key in all of them")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option("--preview", options->sheet,
                   "Write a picture of each class's first training images, as the network sees "
                   "them without augmentation")
      ->type_name("FILE.png");
  command->add_flag("--decode", options->decode, "Decode every image and list all that are broken");
  command->callback([options] {
    const std::vector<std::string>& configs = options->configs;
    if (!options->sheet.empty() && configs.size() > 1) {
      throw Error("--preview: one picture cannot show " + std::to_string(configs.size()) +
                  " configurations; check them one by one");
    }
    set_threads(0);
    int64_t bad = 0;
    for (const std::string& path : configs) {
      try {
        check(path, *options);
      } catch (const Error& error) {
        if (configs.size() == 1) throw;
        std::cerr << "rep: " << error.what() << "\n";
        ++bad;
      }
    }
    if (bad > 0) {
      throw Error(std::to_string(bad) + " of " + std::to_string(configs.size()) +
                  " configurations are not good; see the lines above");
    }
  });
}

}  // namespace rep
