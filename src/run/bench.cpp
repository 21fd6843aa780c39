#include "run/bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "core/progress.h"
#include "data/dataset.h"
#include "data/device_images.h"
#include "kernels/lanes.h"
#include "kernels/products.h"
#include "nn/reference_vit.h"
#include "run/learner.h"
#include "run/loops.h"
#include "run/result.h"
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

void compute_by_reference(Learner& learner) {
  auto* const vit = dynamic_cast<VisionTransformerImpl*>(learner.backbone.get());
  if (vit) vit->compute_with(kReferenceOperations);
  if (!learner.query_backbone.is_empty()) {
    learner.query_backbone->compute_with(kReferenceOperations);
  }
}

// What happens in the steps, phase by phase, and between them.
struct Timing {
  std::vector<double> steps, units;
  std::vector<PhaseCost> phases;  // of each step
  int64_t peak = 0;
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

}  // namespace

Json bench(const Config& asked, int64_t steps, int64_t warmup, bool reference) {
  Config config = asked;
  QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (reference && query.name.empty()) query = {config.backbone.name, config.backbone.weights};
  config.train.iterations = warmup + steps;
  config.train.epochs = std::max<int64_t>(config.train.epochs, 1 << 20);
  config.train.drop_last = true;  // every measured step is of a whole batch
  const torch::Device device = choose_device(config.device);
  seed_everything(config.seed);
  const auto train = open_dataset(config.dataset, Split::kTrain, config.seed, device);
  const auto test = open_dataset(config.dataset, Split::kTest, config.seed, device);
  const Stream stream = cut_into_tasks(*train, *test, config.stream, config.seed);
  const Task& task = stream.tasks.front();
  Learner learner(config, stream, *train, device);
  if (reference) compute_by_reference(learner);
  learner.images->set_task(task);
  learner.method->begin_task(task);

  const int64_t size = learner.backbone->image_size();
  const torch::Tensor images = torch::rand({config.train.batch_size, 3, size, size}, device);
  const auto unit = [&](Backbone& backbone) {
    return seconds_of(device, [&] { reference_features(backbone, images); });
  };
  // The unit is of fp32, whatever the steps are in.
  const bool is_fp32 = config.precision == "fp32";

  Timing timing;
  Progress progress(Progress::Verbosity::kQuiet, "");
  Result books{Json::object()};
  books.begin_task(task, train->class_names());
  Position position;
  auto last = Clock::now();
  PhaseCost before = metered();
  reset_peak_tensor_bytes();
  train_task(
      learner, *train, task, 1, config, position, {},
      [&](Optimizer&, const StepReport*) {
        wait_for(device);
        const double seconds = std::chrono::duration<double>(Clock::now() - last).count();
        const PhaseCost cost = metered() - before;
        if (position.iteration > warmup) {
          timing.steps.push_back(seconds);
          timing.phases.push_back(cost);
          timing.peak = std::max(timing.peak, peak_tensor_bytes());
        }
        if (is_fp32) timing.units.push_back(unit(*learner.backbone));
        reset_peak_tensor_bytes();
        before = metered();
        last = Clock::now();
      },
      books, progress);
  if (timing.steps.empty()) {
    throw Error("method: " + config.method.name + " has no training steps to measure");
  }
  learner.method->end_task(task);

  // An image is tested once for every task from its own on; its query is computed the first time.
  learner.efficiency->remember_test_queries(test->size());
  const auto tested = [&] {
    return seconds_of(device, [&] { evaluate(learner, *test, task, task.last_label(), config); });
  };
  const double first = tested(), again = tested();
  const auto T = static_cast<double>(stream.tasks.size());
  const double tests = T * (T + 1) / 2;
  const double an_image = (T * first + (tests - T) * again) / tests /
                          static_cast<double>(std::max<size_t>(1, task.test.size()));

  const int64_t peak_rss = peak_rss_bytes();
  if (!is_fp32) {  // after the steps: a second model's memory is not theirs
    VisionTransformer plain(
        vit_options(config.backbone.name, config.backbone.image_size, config.backbone.patch_size));
    plain->to(device);
    for (int64_t i = 0; i < warmup + steps; ++i) timing.units.push_back(unit(*plain));
  }
  const double unit_seconds = median(timing.units), step = median(timing.steps);
  const auto count = static_cast<double>(timing.steps.size());
  Json phases = Json::object(), phase_seconds = Json::object(), macs = Json::object();
  double step_macs = 0;
  for (const auto& [name, phase] : kTrainPhases) {
    const auto i = static_cast<size_t>(phase);
    std::vector<double> seconds;
    double all_seconds = 0, all_macs = 0;
    for (const PhaseCost& cost : timing.phases) {
      seconds.push_back(cost.seconds[i]);
      all_seconds += cost.seconds[i];
      all_macs += static_cast<double>(cost.macs[i]);
    }
    phases[name] = all_seconds / count / unit_seconds;
    phase_seconds[name] = spread(seconds);
    macs[name] = all_macs / count;
    step_macs += all_macs / count;
  }
  const double fp32 = matmul_rate(device, torch::kFloat, device.is_cpu() ? 2048 : 8192);
  const double bf16 = matmul_rate(device, torch::kBFloat16, device.is_cpu() ? 1024 : 8192);
  return {{"config", config.name},
          {"reference", reference},
          {"device", describe_device(device)},
          {"steps", timing.steps.size()},
          {"unit_seconds", unit_seconds},
          {"step_ratio", step / unit_seconds},
          {"step_seconds", spread(timing.steps)},
          {"phases", phases},
          {"phase_seconds", phase_seconds},
          {"eval_ratio", an_image / (unit_seconds / static_cast<double>(config.train.batch_size))},
          {"matmul_flops_per_second", {{"fp32", fp32}, {"bf16", bf16}}},
          {"matmul_fraction", 2 * step_macs / step / (is_fp32 ? fp32 : bf16)},
          {"peak_tensor_bytes", timing.peak},
          {"peak_rss_bytes", peak_rss},
          {"macs_per_step", step_macs},
          {"macs_by_phase", macs}};
}

}  // namespace rep
