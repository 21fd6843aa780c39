// rep export: what a run has learnt, as files that other programs can read.
#include "run/export.h"

#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/print_model.h"

namespace rep {

void add_export_command(CLI::App& app) {
  const auto options = std::make_shared<ExportOptions>();
  CLI::App* command = app.add_subcommand(
      "export", "What a run has learnt: tensors as safetensors, and how to use them as JSON");
  command->add_option("run", options->run, "The run's folder, or a checkpoint")->required();
  command->add_option("--output", options->output, "The folder to write; new or empty")->required();
  command->add_flag("--with-memory", options->with_memory,
                    "Also what only further learning needs: stored images, earlier parameters");
  command->footer("Example: rep export results/quickstart --output models/quickstart");
  command->callback([options] {
    print_model(export_model(*options), options->output + "/" + kModelFile);
    std::cout << "written: " << options->output << "/" << kLearnedFile << ", " << kModelFile
              << "\n";
  });
}

}  // namespace rep
