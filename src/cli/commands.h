#pragma once

#include <CLI/CLI.hpp>

namespace rep {

// One file a subcommand. Each adds itself to the program, with a help text that ends in an example;
// what it does runs as CLI11's callback and throws Error, Interrupted or anything else to main().
void add_run_command(CLI::App& app);
void add_sweep_command(CLI::App& app);
void add_check_command(CLI::App& app);
void add_list_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_pretrain_command(CLI::App& app);
void add_report_command(CLI::App& app);

}  // namespace rep
