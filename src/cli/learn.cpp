// rep learn: a finished run learns a folder of new classes as its next task.
#include "run/learn.h"

#include <filesystem>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/override_flags.h"
#include "cli/run_and_report.h"
#include "core/error.h"

namespace rep {
namespace {

struct LearnArguments {
  std::string run, folder, output;
  OverrideFlags flags;
  bool resume = false, quiet = false, verbose = false;
};

// RUN-NAME, where NAME is the last part of the new folder's path.
std::string usual_output(const LearnArguments& arguments) {
  const auto name = [](const std::string& path) {
    return std::filesystem::path(path).lexically_normal().string();
  };
  const auto stripped = [](std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
  };
  return stripped(name(arguments.run)) + "-" +
         std::filesystem::path(stripped(name(arguments.folder))).filename().string();
}

void learn(const LearnArguments& arguments) {
  const std::vector<std::string> overrides = arguments.flags.overrides();
  const FinishedRun run = read_run_to_continue(arguments.run, overrides);
  const Config config = continued_config(run, arguments.folder, overrides);
  const std::string output = arguments.output.empty() ? usual_output(arguments) : arguments.output;
  std::error_code none;
  if (std::filesystem::equivalent(output, arguments.run, none)) {
    throw Error("--output: " + output +
                " is the run that goes on, which stays as it is; name another folder");
  }
  run_and_report(config, {output, arguments.resume, arguments.quiet, arguments.verbose, &run});
}

}  // namespace

void add_learn_command(CLI::App& app) {
  const auto arguments = std::make_shared<LearnArguments>();
  CLI::App* command = app.add_subcommand(
      "learn", "Let a finished run learn a folder of new classes as its next task");
  command->footer("Example: rep learn results/photos more-photos --output results/photos-2");
  command->add_option("run", arguments->run, "The folder of a finished run; it stays as it is")
      ->required();
  command
      ->add_option("folder", arguments->folder,
                   "A folder of images for each new class, or train/ and test/ with those")
      ->required();
  arguments->flags.add_to(*command);
  command->add_option("--output", arguments->output, "The new run's folder [RUN-FOLDER]");
  command->add_flag("--resume", arguments->resume, "Go on with the run in the output folder");
  auto* quiet = command->add_flag("-q,--quiet", arguments->quiet, "Warnings only");
  command->add_flag("-v,--verbose", arguments->verbose, "More lines")->excludes(quiet);
  command->callback([arguments] { learn(*arguments); });
}

}  // namespace rep
