// rep report: results, as a table or a page.
#include "study/report.h"

#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "core/files.h"
#include "run/setup.h"

namespace rep {

void add_report_command(CLI::App& app) {
  auto options = std::make_shared<ReportOptions>();
  auto output = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "report", "Table of results: mean and deviation over seeds, a row for every configuration");
  command->footer(
      "Example: rep report results/rates --format markdown --metrics average_accuracy,forgetting");
  command->add_option("paths", options->paths, "result.json files, or folders to search")
      ->required();
  command->add_option("--format", options->format, "table, markdown, latex, csv or json")
      ->check(CLI::IsMember({"table", "markdown", "latex", "csv", "json"}));
  command
      ->add_option("--group-by", options->group_by,
                   "Configuration keys that make a row (default: all that differ but the seed)")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option("--metrics", options->metrics,
                   "Columns: metrics (rep list metrics), and train_macs, eval_macs, step_seconds, "
                   "train_seconds, peak_tensor_bytes, state_bytes, ...")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option("--published", options->published,
                   "Put these published figures beside ours (default: results/published.yaml)")
      ->expected(0, 1)
      ->default_str("results/published.yaml");
  command->add_option("--output", *output, "Write to this file instead of the terminal");
  auto html = std::make_shared<std::string>();
  command
      ->add_option("--html", *html,
                   "Write a page with the table and pictures of accuracy, forgetting and costs to "
                   "this file; it needs no other")
      ->type_name("FILE")
      ->excludes("--output")
      ->excludes("--format");
  command->callback([options, output, html, command] {
    if (command->count("--published") > 0 && options->published.empty()) {
      options->published = "results/published.yaml";
    }
    if (!html->empty()) {
      options->format = "html";
      *output = *html;
    }
    options->defaults = defaults_of;
    const std::string text = make_report(*options);
    if (output->empty()) {
      std::cout << text;
    } else {
      write_file_atomically(*output, text);
    }
  });
}

}  // namespace rep
