// rep bench: what a training step costs, as a ratio to a plain forward pass, or what its images
// cost.
#include "run/bench.h"

#include <cstdio>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/human.h"
#include "data/throughput.h"
#include "nn/backbone.h"
#include "run/pretrain.h"
#include "run/setup.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

namespace {

struct BenchArguments {
  std::string config;
  std::vector<std::string> set;
  int64_t steps = 10, warmup = 3;
  bool json = false, data = false, reference = false;
};

void print(const Json& result) {
  const auto line = [](const char* name, double value, const char* unit) {
    std::printf("  %-28s %10.3f %s\n", name, value, unit);
  };
  std::printf("%s, %lld steps\n", result["config"].get<std::string>().c_str(),
              static_cast<long long>(result["steps"].get<int64_t>()));
  line("a plain forward (the unit)", result["unit_seconds"], "s");
  line("a step", result["step_ratio"], "units");
  const auto spread = [](const char* name, const Json& seconds) {
    std::printf("  %-28s %10.3f s (%.3f to %.3f)\n", name, seconds["median"].get<double>(),
                seconds["min"].get<double>(), seconds["max"].get<double>());
  };
  spread("a step, median", result["step_seconds"]);
  for (const auto& [name, seconds] : result["phase_seconds"].items()) {
    spread(("  " + name).c_str(), seconds);
  }
  line("testing an image", result["eval_ratio"], "units / batch");
  line("of the machine's matmul rate", 100 * result["matmul_fraction"].get<double>(), "%");
  std::printf("  %-28s %10sB\n", "peak tensor memory",
              human(result["peak_tensor_bytes"].get<double>()).c_str());
  if (!result["cuda_peak_bytes"].is_null()) {
    std::printf("  %-28s %10sB\n", "peak on the GPU",
                human(result["cuda_peak_bytes"].get<double>()).c_str());
  }
  std::printf("  %-28s %10sMAC\n", "a step", human(result["macs_per_step"].get<double>()).c_str());
}

Json bench_data(const Config& config) {
  constexpr int64_t kImages = 256, kPasses = 9;
  // Needs no weights.
  const int64_t side = family_of(config.backbone.name).image_size(config.backbone);
  Json result{{"config", config.name},
              {"dataset", config.dataset.name},
              {"augment", config.train.augment},
              {"image_size", side}};
  for (const bool train : {true, false}) {
    const auto dataset =
        open_dataset(config.dataset, train ? Split::kTrain : Split::kTest, config.seed);
    const Transform transform(config.train.augment, side, normalisation(config.backbone.normalise),
                              train);
    const Throughput cost = time_view(*dataset, transform, kImages, kPasses, config.seed);
    result[train ? "train" : "test"] = {{"images", cost.images},
                                        {"passes", kPasses},
                                        {"ms_best", cost.best_ms},
                                        {"ms_median", cost.median_ms},
                                        {"ms_stored", cost.stored_ms}};
  }
  return result;
}

void print_data(const Json& result) {
  std::printf("%s: %s at %lld pixels, one thread, ms of processor time an image\n",
              result["config"].get<std::string>().c_str(),
              result["dataset"].get<std::string>().c_str(),
              static_cast<long long>(result["image_size"].get<int64_t>()));
  std::printf("  %-10s %8s %8s %16s %8s\n", "view", "best", "median", "of best: stored", "images");
  for (const char* view : {"train", "test"}) {
    const Json& cost = result[view];
    std::printf("  %-10s %8.3f %8.3f %16.3f %8lld\n", view, cost["ms_best"].get<double>(),
                cost["ms_median"].get<double>(), cost["ms_stored"].get<double>(),
                static_cast<long long>(cost["images"].get<int64_t>()));
  }
}

void run_bench(const BenchArguments& arguments) {
  Config config = read_experiment(arguments.config, arguments.set);
  if (arguments.data) {
    const Json result = bench_data(config);
    if (arguments.json) {
      std::cout << to_text(result, 1) << "\n";
    } else {
      print_data(result);
    }
    return;
  }
  install_meter();
  set_threads(config.threads);
  resolve_pretrained(config, nullptr);
  const Json result = bench(config, arguments.steps, arguments.warmup, arguments.reference);
  if (arguments.json) {
    std::cout << to_text(result, 1) << "\n";
  } else {
    print(result);
  }
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand(
      "bench", "Time training steps, by phase and as a ratio to one plain forward pass");
  command->footer(
      "Example: rep bench configs/bench/large-l2p.yaml --steps 5 --json\n"
      "         rep bench configs/cifar100/l2p.yaml --data");
  command->add_option("config", arguments->config, "The experiment (YAML)")->required();
  command->add_option("--set", arguments->set, "Override a key")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--steps", arguments->steps, "Steps to measure [10]")->check(kPositiveCount);
  command->add_option("--warmup", arguments->warmup, "Steps before them [3]")->check(kCount);
  command->add_flag(
      "--reference", arguments->reference,
      "Step as published code does: op by op, a second copy of the model for queries");
  command->add_flag("--data", arguments->data,
                    "Time making the network's inputs on one thread instead; needs no weights");
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments] { run_bench(*arguments); });
}

}  // namespace rep
