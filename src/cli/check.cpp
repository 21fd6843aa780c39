#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "core/error.h"
#include "data/stream.h"
#include "run/learner.h"
#include "run/loops.h"
#include "run/pretrain.h"
#include "run/setup.h"
#include "tensor/device.h"

namespace rep {

namespace {

// Everything that a run does before its first step; throws what it would throw.
void check(const std::string& path, const std::vector<std::string>& set) {
  Config config = read_experiment(path, set);
  resolve_pretrained(config, nullptr);
  const torch::Device device = choose_device(config.device);
  const auto train = open_dataset(config.dataset, Split::kTrain, config.seed);
  const auto test = open_dataset(config.dataset, Split::kTest, config.seed);
  const Stream stream = cut_into_tasks(*train, *test, config.stream, config.seed);
  Learner learner(config, stream, *train, device);
  int64_t steps = 0;
  for (const Task& task : stream.tasks) {
    steps += steps_of_task(config.train, static_cast<int64_t>(task.train.size()));
  }
  std::cout << path << ": good; " << config.method.name << " on " << config.dataset.name << ", "
            << stream.tasks.size() << " tasks of " << stream.num_classes() << " classes, "
            << train->size() << " train and " << test->size() << " test images, " << steps
            << " steps\n";
}

}  // namespace

void add_check_command(CLI::App& app) {
  auto configs = std::make_shared<std::vector<std::string>>();
  auto set = std::make_shared<std::vector<std::string>>();
  CLI::App* command =
      app.add_subcommand("check", "Validate configuration, data and weights without training");
  command->footer("Example: rep check configs/cifar100/l2p.yaml configs/cifar100/rep-l2p.yaml");
  command->add_option("configs", *configs, "Experiments (YAML)")->required();
  command->add_option("--set", *set, "Override a key in all of them")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->callback([configs, set] {
    set_threads(0);
    int64_t bad = 0;
    for (const std::string& path : *configs) {
      try {
        check(path, *set);
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
