#include "run/pretrain.h"

#include <iostream>
#include <memory>
#include <optional>

#include "cli/commands.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "tensor/device.h"

namespace rep {

namespace {

struct Arguments {
  std::string config, output;
  std::vector<std::string> set;
  bool quiet = false;
};

// stdout gets the weight file's path alone, for scripts.
void run(const Arguments& arguments) {
  catch_interrupts();
  Progress progress(arguments.quiet ? Progress::Verbosity::kQuiet : Progress::Verbosity::kVerbose,
                    "");
  const Config config = read_pretraining(arguments.config, arguments.set);
  set_threads(config.threads);
  // A second process is told before the data is opened; the file's name is known after that.
  const FileLock asked = lock_pretraining(
      arguments.output.empty() ? pretraining_request(config) : arguments.output, nullptr);
  const std::string path = arguments.output.empty() ? pretrained_path(config) : arguments.output;
  std::optional<FileLock> lock;
  if (arguments.output.empty()) lock.emplace(lock_pretraining(path, nullptr));
  pretrain(config, path, progress);
  std::cout << path << "\n";
}

}  // namespace

void add_pretrain_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "pretrain", "Train a small ViT on a base data set and save it as safetensors");
  command->footer(
      "An experiment whose backbone.weights is pretrain:CONFIG.yaml does this by itself, once.\n"
      "Example: rep pretrain configs/quickstart-pretrain.yaml --set train.epochs=2");
  command->add_option("config", arguments->config, "What to train (YAML)")->required();
  command->add_option("--set", arguments->set, "Override a key, e.g. train.optimizer.lr=0.01")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--output", arguments->output,
                      "The weight file [weights/BACKBONE-HASH.safetensors]");
  command->add_flag("-q,--quiet", arguments->quiet, "Warnings only");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace rep
