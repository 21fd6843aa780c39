// rep predict: what a finished run's model makes of image files.
#include "run/predict.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"
#include "data/image_tree.h"
#include "tensor/device.h"

namespace rep {
namespace {

struct PredictArguments {
  std::string run;
  std::vector<std::string> images, set;
  int64_t top = 5, batch = 0;
  bool json = false;
};

// One line on stderr; the number of those is what the exit code goes by.
void report_fault(const std::string& sentence) { std::cerr << "rep: " << sentence << std::endl; }

// The files that the arguments stand for: themselves, or the images below a folder.
// Of a folder without any, and with --json also as a line on stdout, what is wrong.
std::vector<std::string> files_of(const PredictArguments& asked, int64_t& faults) {
  std::vector<std::string> files;
  for (const std::string& argument : asked.images) {
    std::error_code none;
    if (!std::filesystem::is_directory(argument, none)) {
      files.push_back(argument);
      continue;
    }
    try {
      LeftOut left_out;
      const std::vector<std::string> below = image_paths_below(argument, "", left_out);
      if (below.empty()) throw Error(printable(argument) + ": no image files below that folder");
      const std::string root = argument.back() == '/' ? argument : argument + "/";
      for (const std::string& path : below) files.push_back(root + path);
      if (!left_out.note().empty()) {
        std::cerr << printable(argument) << ": " << left_out.note() << std::endl;
      }
    } catch (const Error& error) {
      report_fault(error.what());
      ++faults;
      if (!asked.json) continue;
      std::cout << to_text({{"path", printable(argument)}, {"error", error.what()}}) << "\n";
    }
  }
  return files;
}

std::string json_line(const Predictor& model, const Prediction& prediction, int64_t top) {
  Json json{{"path", printable(prediction.path)}};
  if (!prediction.fault.empty()) {
    json["error"] = prediction.fault;
    return to_text(json);
  }
  json["top"] = Json::array();
  for (const int64_t label : prediction.top(top)) {
    json["top"].push_back({{"class", model.class_name(label)},
                           {"label", label},
                           {"probability", prediction.probabilities[static_cast<size_t>(label)]}});
  }
  return to_text(json);
}

// A field of a line: tabs and ends of lines, which separate, become \t and \n.
std::string field(const std::string& text) {
  std::string escaped;
  for (const char c : printable(text)) {
    escaped += c == '\t' ? "\\t" : c == '\n' ? "\\n" : c == '\r' ? "\\r" : std::string(1, c);
  }
  return escaped;
}

// PATH, and class and probability of each, with tabs between: names and paths may have blanks.
std::string text_line(const Predictor& model, const Prediction& prediction, int64_t top) {
  std::string line = field(prediction.path);
  for (const int64_t label : prediction.top(top)) {
    char number[16];
    std::snprintf(number, sizeof number, "\t%.4f",
                  prediction.probabilities[static_cast<size_t>(label)]);
    line += "\t" + field(model.class_name(label)) + number;
  }
  return line;
}

void predict(const PredictArguments& arguments) {
  FinishedRun run = read_finished_run(arguments.run, arguments.set);
  int64_t faults = 0;
  const std::vector<std::string> files = files_of(arguments, faults);
  set_threads(run.config.threads);
  const auto batch_size =
      static_cast<size_t>(arguments.batch > 0 ? arguments.batch : run.config.eval.batch_size);
  Predictor model(std::move(run));
  if (model.predicts_by_batch()) {
    std::cerr << "note: the method selects prompts for a whole batch at once, so that a prediction "
                 "depends on the "
              << batch_size << " images that share its batch (--batch)" << std::endl;
  }
  for (size_t first = 0; first < files.size(); first += batch_size) {
    const size_t last = std::min(files.size(), first + batch_size);
    for (const Prediction& prediction :
         model.predict({files.begin() + static_cast<std::ptrdiff_t>(first),
                        files.begin() + static_cast<std::ptrdiff_t>(last)})) {
      if (!prediction.fault.empty()) {
        report_fault(prediction.fault);
        ++faults;
        if (!arguments.json) continue;
      }
      std::cout << (arguments.json ? json_line(model, prediction, arguments.top)
                                   : text_line(model, prediction, arguments.top))
                << "\n";
    }
    if (!std::cout.flush()) throw Error("cannot write to the standard output");
  }
  if (faults > 0) {
    throw Error(std::to_string(faults) + (faults == 1 ? " image or folder" : " images or folders") +
                " could not be read, as said above" +
                (files.empty() ? "" : "; the others were predicted"));
  }
}

}  // namespace

void add_predict_command(CLI::App& app) {
  const auto arguments = std::make_shared<PredictArguments>();
  CLI::App* command =
      app.add_subcommand("predict", "Classify image files with what a finished run learned");
  command->footer("Example: rep predict results/photos new/1.jpg new/more --top 3");
  command->add_option("run", arguments->run, "The folder of a finished run")->required();
  command
      ->add_option("images", arguments->images,
                   "Image files, and folders whose images are all taken")
      ->required();
  command->add_option("--top", arguments->top, "Classes an image, the most probable first [5]")
      ->check(kPositiveCount);
  command->add_flag("--json", arguments->json, "One JSON object a line and image");
  command->add_option("--batch", arguments->batch, "Images at a time [eval.batch_size of the run]")
      ->check(kPositiveCount);
  command
      ->add_option("--set", arguments->set,
                   "Override a key that changes no result, e.g. device=cpu, train.workers=4, or "
                   "backbone.weights=FILE where the weights have moved")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->callback([arguments] { predict(*arguments); });
}

}  // namespace rep
