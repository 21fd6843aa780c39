#include <iostream>
#include <memory>

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
  const std::string name = split == Split::kTrain ? "training" : "test";
  const Contents contents = contents_of(dataset);
  if (contents.lost > 0) {
    std::string first;  // why, with the path
    try {
      dataset.image(contents.first_lost);
    } catch (const Error& error) {
      first = error.what();
    }
    throw Error("dataset: " + std::to_string(contents.lost) + " of " +
                std::to_string(contents.images) + " " + name +
                " images are not there; the first: " + first);
  }
  std::string text = "  " + name + ": " + std::to_string(contents.images) + " images of " +
                     std::to_string(contents.classes) + " classes, " +
                     human(static_cast<double>(contents.bytes)) + "B, fingerprint " +
                     dataset.fingerprint() + "\n";
  const auto official = Registry<DatasetKind>::get().at(config.dataset.name).value.official;
  const char* const limit = split == Split::kTrain ? "limit_train" : "limit_test";
  if (!official || config.dataset.effective.value(limit, int64_t{0}) > 0) return text;
  const std::string note = lacking(dataset, official(config.dataset, split), name);
  return note.empty() ? text : text + "  note: " + note + "\n";
}

// Everything that a run does before its first step; throws what it would throw. `sheet`: where a
// picture of the training images goes, "" for nowhere.
void check(const std::string& path, const std::vector<std::string>& set, const std::string& sheet) {
  Config config = read_experiment(path, set);
  resolve_pretrained(config, nullptr);
  const Session session = open_session(config);
  const Stream& stream = session.stream;
  if (!config.eval.offline_result.empty()) {
    read_offline_result(config.eval.offline_result, stream.classes());
  }
  int64_t steps = 0;
  for (const Task& task : stream.tasks) {
    steps += steps_of_task(config.train, static_cast<int64_t>(task.train.size()));
  }
  std::string details;
  for (const std::string& line : remarks(session.learner.inputs)) details += "  " + line + "\n";
  details += describe_split(config, *session.train, Split::kTrain) +
             describe_split(config, *session.test, Split::kTest);
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
            << session.train->size() << " train and " << session.test->size() << " test images, "
            << steps << " steps\n"
            << details;
}

}  // namespace

void add_check_command(CLI::App& app) {
  auto configs = std::make_shared<std::vector<std::string>>();
  auto set = std::make_shared<std::vector<std::string>>();
  auto sheet = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("check", "Validate configuration, data and weights without training");
  command->footer("Example: rep check configs/cifar100/l2p.yaml configs/cifar100/rep-l2p.yaml");
  command->add_option("configs", *configs, "Experiments (YAML)")->required();
  command->add_option("--set", *set, "Override a key in all of them")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option("--preview", *sheet,
                   "Write a picture of each class's first training images, as the network sees "
                   "them without augmentation")
      ->type_name("FILE.png");
  command->callback([configs, set, sheet] {
    if (!sheet->empty() && configs->size() > 1) {
      throw Error("--preview: one picture cannot show " + std::to_string(configs->size()) +
                  " configurations; check them one by one");
    }
    set_threads(0);
    int64_t bad = 0;
    for (const std::string& path : *configs) {
      try {
        check(path, *set, *sheet);
      } catch (const Error& error) {
        if (configs->size() == 1) throw;
        std::cerr << "rep: " << error.what() << "\n";
        ++bad;
      }
    }
    if (bad > 0) {
      throw Error(std::to_string(bad) + " of " + std::to_string(configs->size()) +
                  " configurations are not good; see the lines above");
    }
  });
}

}  // namespace rep
