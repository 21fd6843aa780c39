// rep plan: what a run will cost, and whether it fits, before it runs.
#include "run/plan.h"

#include <cstdio>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/human.h"
#include "cli/override_flags.h"
#include "core/bytes.h"
#include "run/memory_fit.h"
#include "run/setup.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

namespace {

struct PlanArguments {
  std::string config;
  OverrideFlags flags;
  int64_t steps = 3;
  bool json = false;
};

void print(const Json& plan) {
  const auto line = [](const char* name, const std::string& value) {
    std::printf("  %-28s %12s\n", name, value.c_str());
  };
  const auto bytes = [](const Json& value) { return show_bytes(value.get<int64_t>()); };
  std::printf("%s, %lld steps\n", plan["config"].get<std::string>().c_str(),
              static_cast<long long>(plan["steps"].get<int64_t>()));
  line("a step", human(plan["macs_per_step"].get<double>()) + "MAC");
  line("training", human(plan["macs"]["train"].get<double>()) + "MAC");
  line("testing", human(plan["macs"]["eval"].get<double>()) + "MAC");
  line("trainable parameters", human(plan["parameters"]["trainable"].get<double>()));
  line("all parameters", human(plan["parameters"]["total"].get<double>()));
  line("carried between tasks", bytes(plan["state_bytes"]));
  line("peak tensor memory", bytes(plan["peak_tensor_bytes"]));
  for (const auto& [name, value] : plan["peaks"].items()) line(("  " + name).c_str(), bytes(value));
  if (plan["resident_bytes"].is_number()) line("resident memory", bytes(plan["resident_bytes"]));
  line("time on this machine", human(plan["seconds_estimated"].get<double>()) + "s");
  if (plan["fits"].is_boolean()) {
    std::printf("%s %s\n", plan["fits"].get<bool>() ? "fits into" : "does not fit into",
                bytes(plan["memory_limit"]).c_str());
  }
  if (!plan["ladder"].empty()) {
    std::printf("  %10s %10s %8s  with, estimated\n", "resident", "tensors", "time");
  }
  const Rung asked = plan["ladder"].empty() ? Rung() : Rung::from_json(plan["ladder"].front());
  for (const Json& json : plan["ladder"]) {
    const Rung rung = Rung::from_json(json);
    std::printf("  %10s %10s %8.2f  %s%s\n", show_bytes(rung.resident_bytes).c_str(),
                show_bytes(rung.peak_tensor_bytes).c_str(), rung.step_time,
                rung.difference(asked.applied_to(Config())).c_str(),
                json["fits"] == true ? ": fits" : "");
  }
  for (const Json& note : plan["notes"]) std::printf("note: %s\n", note.get<std::string>().c_str());
}

void run_plan(const PlanArguments& arguments) {
  const Config config = read_experiment(arguments.config, arguments.flags.overrides());
  PlanOptions options;
  options.steps = arguments.steps;
  install_meter();
  set_threads(config.threads);
  const Json result = plan(config, options);
  if (arguments.json) {
    std::cout << to_text(result, 1) << "\n";
  } else {
    print(result);
  }
}

}  // namespace

void add_plan_command(CLI::App& app) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* command =
      app.add_subcommand("plan", "What a run will cost, and whether it fits, from a rehearsal");
  command->footer("Example: rep plan configs/cifar100/rep-l2p.yaml --memory-limit 2GiB");
  command->add_option("config", arguments->config, "The experiment (YAML)")->required();
  arguments->flags.add_to(*command);
  command->add_option("--steps", arguments->steps, "Steps to rehearse in a task [3]")
      ->check(CLI::Range(2, 1000));
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments] { run_plan(*arguments); });
}

}  // namespace rep
