#include "run/bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "core/error.h"
#include "kernels/lanes.h"
#include "kernels/products.h"
#include "nn/reference_vit.h"
#include "run/evaluation.h"
#include "run/loops.h"
#include "run/memory_limit.h"
#include "run/result.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/device.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

namespace {

using Clock = std::chrono::steady_clock;

void wait_for(const torch::Device& device) {
  // On the CPU an operation is over when it returns; reading one number waits for a GPU.
  if (!device.is_cpu()) torch::zeros({}, device).item<float>();
}

double seconds_of(const torch::Device& device, const std::function<void()>& work) {
  wait_for(device);
  const auto start = Clock::now();
  work();
  wait_for(device);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// FLOP a second of square matrix products that are large enough to show the machine's best, by the
// better of the libraries at hand. On a processor that does not multiply bf16 LibTorch has no
// kernels for it.
double matmul_rate(const torch::Device& device, torch::ScalarType type, int64_t side) {
  const torch::Tensor a = torch::rand({side, side}, device).to(type);
  const torch::Tensor b = torch::rand({side, side}, device).to(type);
  const bool ask_torch = type == torch::kFloat || !device.is_cpu() || pairs_are_fast();
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    double least = seconds_of(device, [&] { product(a, b, type); });
    if (ask_torch) least = std::min(least, seconds_of(device, [&] { torch::mm(a, b); }));
    if (i > 0) seconds.push_back(least);  // the first warms up
  }
  return 2.0 * static_cast<double>(side * side * side) /
         *std::min_element(seconds.begin(), seconds.end());
}

// What happens in the steps, phase by phase, and between them.
struct Timing {
  std::vector<double> steps, units;
  std::vector<PhaseCost> phases;  // of each step
  int64_t peak = 0, cuda_peak = -1;
};

Json spread(const std::vector<double>& seconds) {
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  return {{"median", median(seconds)}, {"min", *least}, {"max", *most}};
}

constexpr std::pair<const char*, Phase> kTrainPhases[]{{"data_wait", Phase::kDataWait},
                                                       {"select", Phase::kSelect},
                                                       {"forward", Phase::kForward},
                                                       {"backward", Phase::kBackward},
                                                       {"step", Phase::kStep}};

// The steps of the first task, all but the first `warmup` of them measured, and after each a unit.
Timing time_steps(Session& session, int64_t warmup, const std::function<double()>& unit) {
  Learner& learner = session.learner;
  const Task& task = session.stream.tasks.front();
  learner.images->set_task(task);
  learner.method->begin_task(task);
  Timing timing;
  Position position;
  auto last = Clock::now();
  PhaseCost before = metered();
  reset_peak_tensor_bytes();
  AfterEachStep watch([&](const Step& step) {
    wait_for(learner.device);
    const double seconds = std::chrono::duration<double>(Clock::now() - last).count();
    const PhaseCost cost = metered() - before;
    if (step.iteration > warmup) {
      timing.steps.push_back(seconds);
      timing.phases.push_back(cost);
      timing.peak = std::max(timing.peak, peak_tensor_bytes());
      timing.cuda_peak = std::max(timing.cuda_peak, cuda_peak_bytes());
    }
    if (unit) timing.units.push_back(unit());
    reset_peak_tensor_bytes();
    before = metered();
    last = Clock::now();
  });
  train_task(session, task, position, {&watch});
  if (timing.steps.empty()) {
    throw Error("method: " + session.config.method.name + " has no training steps to measure");
  }
  learner.method->end_task(task);
  return timing;
}

// Seconds of testing an image of the first task, over a whole run: once for every task from its own
// on, of which the first time computes its query.
double time_test(Session& session) {
  const Task& task = session.stream.tasks.front();
  const auto tested = [&] {
    return seconds_of(session.learner.device, [&] { evaluate(session, task, task.last_label()); });
  };
  const double first = tested(), again = tested();
  const auto T = static_cast<double>(session.stream.tasks.size());
  const double tests = T * (T + 1) / 2;
  return (T * first + (tests - T) * again) / tests /
         static_cast<double>(std::max<size_t>(1, task.test.size()));
}

// Of the measured steps, phase by phase: seconds in units and as they are, and MACs.
struct ByPhase {
  Json units = Json::object(), seconds = Json::object(), macs = Json::object();
  double step_macs = 0;
};

ByPhase by_phase(const Timing& timing, double unit_seconds) {
  const auto count = static_cast<double>(timing.steps.size());
  ByPhase means;
  for (const auto& [name, phase] : kTrainPhases) {
    const auto i = static_cast<size_t>(phase);
    std::vector<double> seconds;
    double all_seconds = 0, all_macs = 0;
    for (const PhaseCost& cost : timing.phases) {
      seconds.push_back(cost.seconds[i]);
      all_seconds += cost.seconds[i];
      all_macs += static_cast<double>(cost.macs[i]);
    }
    means.units[name] = all_seconds / count / unit_seconds;
    means.seconds[name] = spread(seconds);
    means.macs[name] = all_macs / count;
    means.step_macs += all_macs / count;
  }
  return means;
}

}  // namespace

Json bench(const Config& asked, int64_t steps, int64_t warmup, bool reference) {
  Config config = asked;
  QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (reference && query.name.empty()) {
    query = {config.backbone.name, config.backbone.weights, config.backbone.weights_key};
  }
  config.train.iterations = warmup + steps;
  config.train.epochs = std::max<int64_t>(config.train.epochs, 1 << 20);
  config.train.drop_last = true;  // every measured step is of a whole batch
  MemoryLimit limit(config);
  config = limit.fit(config, /*divides=*/true, [](const std::string&) {});
  Session session = open_session(config);
  limit.watch(session, nullptr, {});
  reset_peak_rss_bytes();
  Learner& learner = session.learner;
  const torch::Device device = learner.device;
  if (reference) {  // which gave the backbone a query model of its kind: both are ViTs
    learner.query_backbone->compute_with(kReferenceOperations);
    dynamic_cast<VisionTransformerImpl&>(*learner.backbone).compute_with(kReferenceOperations);
  }

  const int64_t size = learner.backbone->image_size();
  const torch::Tensor images = torch::rand({config.train.batch_size, 3, size, size}, device);
  const auto unit = [&](Backbone& backbone) {
    return seconds_of(device, [&] { reference_features(backbone, images); });
  };
  // The unit is of fp32, whatever the steps are in.
  const bool is_fp32 = config.precision == "fp32";
  const bool between = is_fp32 && !limit.is_set();  // or its memory would be taken for the steps'
  Timing timing = time_steps(
      session, warmup,
      between ? std::function<double()>([&] { return unit(*learner.backbone); }) : nullptr);
  const double an_image = time_test(session);
  const int64_t peak_rss = peak_rss_bytes();
  if (is_fp32 && !between) {
    for (int64_t i = 0; i < warmup + steps; ++i) timing.units.push_back(unit(*learner.backbone));
  }
  if (!is_fp32) {  // after the steps: a second model's memory is not theirs
    VisionTransformer plain(
        vit_options(config.backbone.name, config.backbone.image_size, config.backbone.patch_size));
    plain->to(device);
    for (int64_t i = 0; i < warmup + steps; ++i) timing.units.push_back(unit(*plain));
  }

  const double unit_seconds = median(timing.units), step = median(timing.steps);
  const ByPhase phases = by_phase(timing, unit_seconds);
  const double fp32 = matmul_rate(device, torch::kFloat, device.is_cpu() ? 2048 : 8192);
  const double bf16 = matmul_rate(device, torch::kBFloat16, device.is_cpu() ? 1024 : 8192);
  return {{"config", config.name},
          {"memory", limit.to_json()},
          {"reference", reference},
          {"device", describe_device(device)},
          {"steps", timing.steps.size()},
          {"unit_seconds", unit_seconds},
          {"step_ratio", step / unit_seconds},
          {"step_seconds", spread(timing.steps)},
          {"phases", phases.units},
          {"phase_seconds", phases.seconds},
          {"eval_ratio", an_image / (unit_seconds / static_cast<double>(config.train.batch_size))},
          {"matmul_flops_per_second", {{"fp32", fp32}, {"bf16", bf16}}},
          {"matmul_fraction", 2 * phases.step_macs / step / (is_fp32 ? fp32 : bf16)},
          {"peak_tensor_bytes", timing.peak},
          {"cuda_peak_bytes", timing.cuda_peak < 0 ? Json() : Json(timing.cuda_peak)},
          {"peak_rss_bytes", peak_rss},
          {"macs_per_step", phases.step_macs},
          {"macs_by_phase", phases.macs}};
}

}  // namespace rep
