#include "run/loops.h"

#include <algorithm>
#include <chrono>
#include <cmath>

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

double scheduled_lr(const TrainConfig& config, int64_t epoch) {
  const auto e = static_cast<double>(epoch), n = static_cast<double>(config.epochs);
  if (config.schedule == "cosine") return config.optimizer.lr * 0.5 * (1 + std::cos(M_PI * e / n));
  if (config.schedule == "coda" && config.epochs > 1) {  // CODA-Prompt's: nearly a quarter wave
    return config.optimizer.lr * std::cos(99 * M_PI * e / (200 * (n - 1)));
  }
  return config.optimizer.lr;
}

Batch to_device(const Batch& batch, const torch::Device& device) {
  if (device.is_cpu()) return batch;
  return {batch.images.to(device), batch.labels.to(device), batch.indices};
}

}  // namespace

int64_t steps_of_task(const TrainConfig& config, int64_t images) {
  const int64_t steps = images == 0 ? 0 : config.epochs * batches(images, config);
  return config.iterations > 0 ? std::min(steps, config.iterations) : steps;
}

void train_task(Learner& learner, const Dataset& data, const Task& task, int64_t tasks,
                const Config& config, Position& position, std::function<void(Optimizer&)> restore,
                const AfterStep& after_step, Result& result, Progress& progress) {
  Method& method = *learner.method;
  Optimizer optimizer(config.train.optimizer, method.parameters(), method.lr_factors());
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

  while (position.iteration < steps) {
    const int64_t epoch = position.iteration / per_epoch;
    const auto keys = [](int64_t key) { return static_cast<uint64_t>(key); };
    Loader::Options options;
    options.batch_size = config.train.batch_size;
    options.workers = config.train.workers;
    options.drop_last = config.train.drop_last;
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

    while (position.iteration < steps) {
      const auto start = std::chrono::steady_clock::now();
      Batch batch;
      {
        const PhaseScope phase(Phase::kDataWait);
        if (!loader.next(batch)) break;
        batch = to_device(batch, learner.device);
      }
      torch::Tensor loss;
      {
        const PhaseScope phase(Phase::kForward);
        learner.efficiency->set_time(
            {config.seed, task.index, position.iteration, position.total_iterations});
        optimizer.zero_grad();
        loss = method.loss(batch);
      }
      {
        const PhaseScope phase(Phase::kBackward);
        loss.backward();
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
      // On a GPU reading the loss waits for the step, so there only now and then.
      const bool log = position.iteration % kLogInterval == 0 || position.iteration == steps;
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
      result.add_step_seconds(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      after_step(optimizer, log ? &report : nullptr);
    }
  }
  optimizer.zero_grad();  // gradients of what a later task freezes would stay
  progress.end_task();
}

Correct evaluate(Learner& learner, const Dataset& data, const Task& task, int64_t seen,
                 const Config& config) {
  const PhaseScope phase(Phase::kEval);
  const c10::InferenceMode inference;
  Loader::Options options;
  options.batch_size = config.eval.batch_size;
  options.workers = config.train.workers;
  Loader loader(data, task.test, learner.transform(config, /*train=*/false), options);
  Correct correct;
  torch::Tensor class_hits = torch::zeros({}, torch::device(learner.device).dtype(torch::kLong));
  torch::Tensor task_hits = class_hits.clone();
  Batch batch;
  while (loader.next(batch)) {
    if (interrupted()) throw Interrupted("stopped while testing; the task's training is saved");
    batch = to_device(batch, learner.device);
    const torch::Tensor logits = learner.method->predict(batch);
    class_hits += logits.narrow(1, 0, seen).argmax(1).eq(batch.labels).sum();
    task_hits += logits.narrow(1, task.first_label, task.last_label() - task.first_label)
                     .argmax(1)
                     .add(task.first_label)
                     .eq(batch.labels)
                     .sum();
    correct.images += batch.size();
  }
  correct.class_incremental = class_hits.item<int64_t>();
  correct.task_incremental = task_hits.item<int64_t>();
  return correct;
}

}  // namespace rep
