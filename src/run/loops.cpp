#include "run/loops.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/bytes.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "data/loader.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

namespace {

constexpr int64_t kLogInterval = 10;  // steps between lines of metrics.jsonl

int64_t batches(int64_t images, const TrainConfig& config) {
  return config.drop_last ? std::max<int64_t>(1, images / config.batch_size)
                          : (images + config.batch_size - 1) / config.batch_size;
}

// This process's images of a batch; one that counts nothing where there are fewer than processes.
struct Share {
  Batch batch;
  double weight = 1;  // in the mean over the whole batch
};

Share share_of(const Batch& whole, const World& world) {
  if (world.size() == 1) return {whole, 1};
  const auto [first, last] = world.part_of(whole.size());
  const int64_t begin = std::min(first, whole.size() - 1),
                images = std::max<int64_t>(last - first, 1);
  return {{whole.images.narrow(0, begin, images), whole.labels.narrow(0, begin, images),
           whole.indices.narrow(0, begin, images)},
          static_cast<double>(last - first) / static_cast<double>(whole.size())};
}

// Gradients and loss become those of the whole batch, and an interrupt of one process one of all:
// they stop after the same step. Returns the loss.
torch::Tensor average(World& world, const std::vector<torch::Tensor>& parameters, double weight,
                      const torch::Tensor& loss) {
  const std::vector<double> sums = world.average_gradients(
      parameters, weight, {weight * loss.item<double>(), signal_arrived() ? 1.0 : 0.0});
  if (sums[1] > 0) interrupt();
  return torch::tensor(sums[0], torch::kDouble);
}

bool is_used_up(const TrainConfig& budget, const Position& position) {
  return (budget.macs > 0 && static_cast<double>(position.macs) >= budget.macs) ||
         (budget.seconds > 0 && position.seconds >= budget.seconds);
}

}  // namespace

bool is_over_memory_limit(const Config& config) {
  const int64_t limit = parse_bytes(config.memory_limit, "memory_limit");
  return limit > 0 && peak_tensor_bytes() > limit;
}

void enforce_memory_limit(const Config& config, Phase phase) {
  if (!is_over_memory_limit(config)) return;
  const bool testing = phase == Phase::kEval;
  throw Error("memory_limit: tensors took " + std::to_string(peak_tensor_bytes()) + " bytes in " +
              (testing ? "testing" : "training") + ", more than the " + config.memory_limit +
              " allowed; take a smaller " + (testing ? "eval" : "train") + ".batch_size" +
              (testing ? "" : ", a larger backbone.recompute or token merging") +
              " (rep plan says what that saves), or raise memory_limit and go on with --resume");
}

int64_t steps_of_task(const TrainConfig& config, int64_t images) {
  const int64_t steps = images == 0 ? 0 : config.epochs * batches(images, config);
  return config.iterations > 0 ? std::min(steps, config.iterations) : steps;
}

void train_task(Learner& learner, const Dataset& data, const Task& task, int64_t tasks,
                const Config& config, Position& position, std::function<void(Optimizer&)> restore,
                const AfterStep& after_step, Result& result, Progress& progress) {
  Method& method = *learner.method;
  Optimizer optimizer(config.train.optimizer, method.parameters(), method.lr_factors(),
                      method.trained_rows());
  if (restore) {
    restore(optimizer);
    restore = nullptr;          // and with it the checkpoint that it held,
    reset_peak_tensor_bytes();  // which an uninterrupted run does not have
  }
  const TrainingSet set =
      optimizer.parameters().empty() ? TrainingSet{&data, {}} : method.training_set(data, task);
  const auto images = static_cast<int64_t>(set.samples.size());
  // A method's own set (a buffer, or the task beside one) is not the stream and has no order.
  const bool streamed = config.stream.order != "shuffled" && set.data == &data;
  const int64_t steps = steps_of_task(config.train, images);
  const int64_t per_epoch = batches(images, config.train);
  progress.begin_task(task.index, tasks, steps, position.iteration);

  const auto over = [&] {
    return position.iteration == steps || is_used_up(config.train, position);
  };
  while (!over()) {
    const int64_t epoch = position.iteration / per_epoch;
    const auto keys = [](int64_t key) { return static_cast<uint64_t>(key); };
    Loader::Options options;
    options.batch_size = config.train.batch_size;
    options.workers = config.train.workers;
    options.device = learner.device;
    // What is less than one batch is a batch, as in batches().
    options.drop_last = config.train.drop_last && images >= config.train.batch_size;
    options.first_batch = position.iteration % per_epoch;
    options.seed = keys(config.seed);
    options.task = keys(task.index);
    options.epoch = keys(epoch);
    Loader loader(
        *set.data,
        streamed ? set.samples : shuffled(set.samples, options.seed, options.task, options.epoch),
        learner.transform(config, /*train=*/true), options);
    const double lr = scheduled_lr(config.train, epoch);
    optimizer.set_lr(lr);

    while (!over()) {
      const auto start = std::chrono::steady_clock::now();
      const int64_t macs_before = macs_so_far();
      Batch batch;
      Share share;
      {
        const PhaseScope phase(Phase::kDataWait);
        if (!loader.next(batch)) break;
        share = share_of(batch, *learner.world);
      }
      torch::Tensor loss;
      {
        const PhaseScope phase(Phase::kForward);
        learner.efficiency->set_time(
            {config.seed, task.index, position.iteration, position.total_iterations, epoch});
        optimizer.zero_grad();
        loss = method.loss(share.batch);
      }
      {
        const PhaseScope phase(Phase::kBackward);
        loss.backward();
        if (learner.world->size() > 1) {
          loss = average(*learner.world, optimizer.parameters(), share.weight, loss);
        }
        method.after_backward();
      }
      {
        const PhaseScope phase(Phase::kStep);
        if (config.train.clip_norm > 0) {
          clip_grad_norm(optimizer.parameters(), config.train.clip_norm);
        }
        optimizer.step();
        method.after_step();
      }
      ++position.iteration;
      ++position.total_iterations;
      position.macs += macs_so_far() - macs_before;
      const auto seconds = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      };
      position.seconds += seconds();
      // On a GPU reading the loss waits for the step, so there only now and then.
      const bool log = position.iteration % kLogInterval == 0 || over();
      StepReport report{task.index, epoch, position.iteration, 0, lr};
      if (log || learner.device.is_cpu()) {
        report.loss = loss.item<double>();
        if (!std::isfinite(report.loss)) {
          throw Error(
              "the loss became " + std::to_string(report.loss) + " in task " +
              std::to_string(task.index) + ", epoch " + std::to_string(epoch) + ", step " +
              std::to_string(position.iteration) +
              "; lower train.optimizer.lr or set train.clip_norm, and --resume goes on from "
              "the last checkpoint");
        }
        progress.step(position.iteration, batch.size(), report.loss);
      }
      result.add_step_seconds(seconds());
      after_step(optimizer, log ? &report : nullptr);
    }
  }
  optimizer.zero_grad();  // gradients of what a later task freezes would stay
  progress.end_task();
}

torch::Tensor count_correct(const torch::Tensor& logits, const torch::Tensor& labels, int64_t first,
                            int64_t last) {
  return logits.narrow(1, first, last - first).argmax(1).add(first).eq(labels).sum();
}

Correct evaluate(Learner& learner, const Dataset& data, const Task& task, int64_t seen,
                 const Config& config) {
  const PhaseScope phase(Phase::kEval);
  const c10::InferenceMode inference;
  Loader::Options options;
  options.batch_size = config.eval.batch_size;
  options.workers = config.train.workers;
  options.device = learner.device;
  const auto [first, last] = learner.world->part_of(static_cast<int64_t>(task.test.size()));
  Loader loader(data, {task.test.begin() + first, task.test.begin() + last},
                learner.transform(config, /*train=*/false), options);
  Correct correct;
  torch::Tensor class_hits = torch::zeros({}, torch::device(learner.device).dtype(torch::kLong));
  torch::Tensor task_hits = class_hits.clone();
  const auto stop_if_told = [] {
    if (interrupted()) throw Interrupted("stopped while testing; the task's training is saved");
  };
  stop_if_told();  // here also a process without images
  Batch batch;
  while (loader.next(batch)) {
    stop_if_told();
    const torch::Tensor logits = learner.method->predict(batch);
    const int64_t candidates = config.eval.classes == "all" ? logits.size(1) : seen;
    class_hits += count_correct(logits, batch.labels, 0, candidates);
    task_hits += count_correct(logits, batch.labels, task.first_label, task.last_label());
    correct.images += batch.size();
    enforce_memory_limit(config, Phase::kEval);
  }
  torch::Tensor all = torch::tensor({class_hits.item<int64_t>(), task_hits.item<int64_t>(),
                                     correct.images, static_cast<int64_t>(signal_arrived())});
  learner.world->sum(all);
  if (all[3].item<int64_t>() > 0) interrupt();  // before the next task's test, or after a step
  correct.class_incremental = all[0].item<int64_t>();
  correct.task_incremental = all[1].item<int64_t>();
  correct.images = all[2].item<int64_t>();
  return correct;
}

}  // namespace rep
