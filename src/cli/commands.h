#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace rep {

/// Checks of counts. CLI11's own would print the largest double, all 309 digits of it.
inline const CLI::Range kCount(int64_t{0}, int64_t{1} << 53, "NONNEGATIVE");
inline const CLI::Range kPositiveCount(int64_t{1}, int64_t{1} << 53, "POSITIVE");

// One file a subcommand. Each adds itself to the program, with a help text that ends in an example;
// what it does runs as CLI11's callback and throws Error, Interrupted or anything else to main().
void add_run_command(CLI::App& app);
void add_sweep_command(CLI::App& app);
void add_check_command(CLI::App& app);
void add_completion_command(CLI::App& app);
void add_learn_command(CLI::App& app);
void add_list_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_export_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_predict_command(CLI::App& app);
void add_pretrain_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_schema_command(CLI::App& app);

}  // namespace rep
