// rep bench: what a training step costs, as a ratio to a plain forward pass.
#include "run/bench.h"

#include <cstdio>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "run/pretrain.h"
#include "run/result.h"
#include "run/setup.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

namespace {

struct BenchArguments {
  std::string config;
  std::vector<std::string> set;
  int64_t steps = 10, warmup = 3;
  bool json = false;
};

void print(const Json& result) {
  const auto line = [](const char* name, double value, const char* unit) {
    std::printf("  %-28s %10.3f %s\n", name, value, unit);
  };
  std::printf("%s, %lld steps\n", result["config"].get<std::string>().c_str(),
              static_cast<long long>(result["steps"].get<int64_t>()));
  line("a plain forward (the unit)", result["unit_seconds"], "s");
  line("a step", result["step_seconds"]["median"], "s");
  line("a step", result["step_ratio"], "units");
  for (const auto& [name, ratio] : result["phases"].items()) {
    line(("  " + name).c_str(), ratio, "units");
  }
  line("testing an image", result["eval_ratio"], "units / batch");
  line("of the machine's matmul rate", 100 * result["matmul_fraction"].get<double>(), "%");
  std::printf("  %-28s %10sB\n", "peak tensor memory",
              human(result["peak_tensor_bytes"].get<double>()).c_str());
  std::printf("  %-28s %10sMAC\n", "a step", human(result["macs_per_step"].get<double>()).c_str());
}

void run_bench(const BenchArguments& arguments) {
  Config config = read_experiment(arguments.config, arguments.set);
  install_meter();
  set_threads(config.threads);
  resolve_pretrained(config, nullptr);
  const Json result = bench(config, arguments.steps, arguments.warmup);
  if (arguments.json) {
    std::cout << result.dump(1) << "\n";
  } else {
    print(result);
  }
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand(
      "bench", "Time training steps, by phase and as a ratio to one plain forward pass");
  command->footer("Example: rep bench configs/readme/large-l2p.yaml --steps 5 --json");
  command->add_option("config", arguments->config, "The experiment (YAML)")->required();
  command->add_option("--set", arguments->set, "Override a key")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--steps", arguments->steps, "Steps to measure [10]")
      ->check(CLI::PositiveNumber);
  command->add_option("--warmup", arguments->warmup, "Steps before them [3]")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments] { run_bench(*arguments); });
}

}  // namespace rep
