#include "run/loops.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/interrupt.h"
#include "data/loader.h"
#include "run/phases.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

namespace {

constexpr int64_t kLogInterval = 10;  // steps between lines of metrics.jsonl

// This process's images of a batch, [first, second); one that counts nothing where there are fewer
// than processes.
std::pair<int64_t, int64_t> rows_of_batch(int64_t images, const World& world) {
  const auto [first, last] = world.part_of(images);
  const int64_t begin = std::min(first, images - 1);
  return {begin, begin + std::max<int64_t>(last - first, 1)};
}

struct Share {
  Batch batch;
  double weight = 1;  // in the mean over the whole batch
};

Share share_of(const Batch& whole, const World& world) {
  if (world.size() == 1) return {whole, 1};
  const auto [begin, end] = rows_of_batch(whole.size(), world);
  const auto [first, last] = world.part_of(whole.size());
  return {{whole.images.slice(0, begin, end), whole.labels.slice(0, begin, end),
           whole.indices.slice(0, begin, end)},
          static_cast<double>(last - first) / static_cast<double>(whole.size())};
}

// Gradients and loss become those of the whole batch, and an interrupt of one process one of all:
// they stop after the same step. Returns the loss.
torch::Tensor average(World& world, const std::vector<torch::Tensor>& parameters, double weight,
                      const torch::Tensor& loss) {
  const std::vector<double> sums = world.average_gradients(
      parameters, weight, {weight * loss.item<double>(), signal_received() ? 1.0 : 0.0});
  if (sums[1] > 0) request_stop();
  return torch::tensor(sums[0], torch::kDouble);
}

// Clipping and the step, once the gradients are those of the whole batch.
void step_on(Learner& learner, double clip_norm, Optimizer& optimizer) {
  const PhaseScope phase(Phase::kStep);
  if (clip_norm > 0) clip_grad_norm(optimizer.parameters(), clip_norm);
  optimizer.step();
  learner.method->after_step();
}

// Forward and backward of a batch, this process's part of it; the loss.
torch::Tensor gradients_of(const Share& share, Learner& learner, Optimizer& optimizer) {
  Method& method = *learner.method;
  torch::Tensor loss;
  {
    const PhaseScope phase(Phase::kForward);
    loss = method.loss(share.batch);
  }
  const PhaseScope phase(Phase::kBackward);
  loss.backward();
  if (learner.world->size() > 1) {
    loss = average(*learner.world, optimizer.parameters(), share.weight, loss);
  }
  method.after_backward();
  return loss;
}

// The same of a batch of so many images that comes in parts, of which `part` is the first: a mean
// over all images is that of the parts' means, each with the weight of its images.
torch::Tensor gradients_of_parts(Batch& part, int64_t images, Method& method,
                                 const std::function<void(Batch&)>& next) {
  torch::Tensor sum;
  for (int64_t done = 0;;) {
    torch::Tensor loss;
    {
      const PhaseScope phase(Phase::kForward);
      loss = method.loss(part) * (static_cast<double>(part.size()) / static_cast<double>(images));
    }
    {
      const PhaseScope phase(Phase::kBackward);
      loss.backward();
    }
    sum = sum.defined() ? sum + loss.detach() : loss.detach();
    done += part.size();
    if (done >= images) break;
    next(part);
  }
  const PhaseScope phase(Phase::kBackward);
  method.after_backward();
  return sum;
}

double finite_loss(const torch::Tensor& loss, const Step& step, size_t tasks) {
  const auto value = loss.item<double>();
  if (std::isfinite(value)) return value;
  throw Diverged("the loss became " + std::to_string(value) + " in task " +
                 std::to_string(step.task + 1) + "/" + std::to_string(tasks) + ", epoch " +
                 std::to_string(step.epoch + 1) + ", step " + std::to_string(step.iteration));
}

// The training of one task.
class TaskTraining {
 public:
  TaskTraining(Session& session, const Task& task, Position& position, const Observers& observers)
      : session_(session),
        train_(session.config.train),
        task_(task),
        position_(position),
        observers_(observers),
        method_(*session.learner.method),
        optimizer_(train_.optimizer, method_.parameters(), method_.lr_factors(),
                   method_.trained_rows()),
        set_{session.train.get(), {}} {
    if (!optimizer_.parameters().empty()) set_ = method_.training_set(*session.train, task);
    const auto images = static_cast<int64_t>(set_.samples.size());
    steps_ = steps_of_task(train_, images);
    per_epoch_ = Loader::batches(images, train_.batch_size, train_.drop_last);
    phases_.emplace(*session.learner.efficiency, method_, train_.decoupled,
                    first_head_step(train_, images));
  }

  void run() {
    for (Observer* one : observers_) {
      one->begin_training(task_, steps_, position_.iteration, optimizer_);
    }
    while (!is_over()) train_epoch(position_.iteration / per_epoch_);
    optimizer_.zero_grad();  // gradients of what a later task freezes would stay
    for (Observer* one : observers_) one->end_training();
  }

 private:
  bool is_over() const {
    const auto macs = static_cast<double>(position_.macs);
    return position_.iteration == steps_ || (train_.macs > 0 && macs >= train_.macs) ||
           (train_.seconds > 0 && position_.seconds >= train_.seconds);
  }

  // From the position on.
  void train_epoch(int64_t epoch) {
    const auto key = [](int64_t number) { return static_cast<uint64_t>(number); };
    Loader::Options options;
    at_once_ = at_once();
    options.batch_size = at_once_;
    options.workers = train_.workers;
    options.device = session_.learner.device;
    options.drop_last = train_.drop_last;
    options.first_batch = position_.iteration % per_epoch_ * (train_.batch_size / at_once_);
    options.seed = key(session_.config.seed);
    options.task = key(task_.index);
    options.epoch = key(epoch);
    const World& world = *session_.learner.world;
    if (world.size() > 1) {  // each decodes its own images only
      options.part = [&](int64_t images) { return rows_of_batch(images, world); };
    }
    // A method's own set (a buffer, or the task beside one) is not the stream and has no order.
    std::vector<Sample> order =
        set_.data == session_.train.get()
            ? epoch_order(session_.config, task_.index, epoch, set_.samples)
            : shuffled(set_.samples, options.seed, options.task, options.epoch);
    // Of whole batches: the loader would drop what is left of a micro-batch.
    order.resize(std::min(order.size(), static_cast<size_t>(per_epoch_ * train_.batch_size)));
    if (at_once_ < train_.batch_size) options.drop_last = false;
    Loader loader(*set_.data, std::move(order),
                  session_.learner.transform(session_.config, /*train=*/true), options);
    optimizer_.set_lr(scheduled_lr(train_, epoch));
    // An observer may have found that fewer fit into memory.
    while (!is_over() && take_step(loader, epoch) && at_once() == at_once_) {
    }
  }

  int64_t at_once() const {
    return train_.micro_batch_size > 0 ? train_.micro_batch_size : train_.batch_size;
  }

  // Of the step at hand, of all processes.
  int64_t images_of_step() const {
    const int64_t before = position_.iteration % per_epoch_ * train_.batch_size;
    return std::min(train_.batch_size, static_cast<int64_t>(set_.samples.size()) - before);
  }

  // False when the epoch has no more batches.
  bool take_step(Loader& loader, int64_t epoch) {
    const auto start = std::chrono::steady_clock::now();
    const int64_t macs_before = macs_so_far();
    Learner& learner = session_.learner;
    const int64_t images = images_of_step();
    Batch batch;
    const auto next = [&loader](Batch& part) {
      const PhaseScope phase(Phase::kDataWait);
      return loader.next(part);
    };
    if (!next(batch)) return false;
    const StepTime time{session_.config.seed, task_.index, position_.iteration,
                        position_.total_iterations, epoch};
    learner.efficiency->set_time(time);
    phases_->at(position_.iteration);
    optimizer_.zero_grad();
    const torch::Tensor loss =
        at_once_ < train_.batch_size
            ? gradients_of_parts(batch, images, method_, next)
            : gradients_of(share_of(batch, *learner.world), learner, optimizer_);
    step_on(learner, train_.clip_norm, optimizer_);
    ++position_.iteration;
    ++position_.total_iterations;
    position_.macs += macs_so_far() - macs_before;
    const auto seconds = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    position_.seconds += seconds();

    Step step{task_.index, epoch, position_.iteration, images, scheduled_lr(train_, epoch)};
    // On a GPU reading the loss waits for the step, so there only now and then.
    step.is_logged = position_.iteration % kLogInterval == 0 || is_over();
    if (step.is_logged || learner.device.is_cpu()) {
      step.loss = finite_loss(loss, step, session_.stream.tasks.size());
    }
    step.seconds = seconds();
    step.tokens = learner.efficiency->train_tokens(method_.prompt_tokens());
    for (Observer* one : observers_) one->after_step(step, optimizer_);
    return true;
  }

  Session& session_;
  const TrainConfig& train_;
  const Task& task_;
  Position& position_;
  const Observers& observers_;
  Method& method_;
  Optimizer optimizer_;
  TrainingSet set_;
  int64_t steps_ = 0, per_epoch_ = 0;
  int64_t at_once_ = 0;  // images of a step that the loader hands out at once
  std::optional<Phases> phases_;
};

}  // namespace

int64_t steps_of_task(const TrainConfig& config, int64_t images) {
  const int64_t steps =
      config.epochs * Loader::batches(images, config.batch_size, config.drop_last);
  return config.iterations > 0 ? std::min(steps, config.iterations) : steps;
}

int64_t first_head_step(const TrainConfig& config, int64_t images) {
  const double ratio = config.decoupled.phase_ratio;
  const int64_t steps = steps_of_task(config, images);
  const int64_t per_epoch = Loader::batches(images, config.batch_size, config.drop_last);
  const auto part = [ratio](int64_t of) {
    return static_cast<int64_t>(static_cast<double>(of) * ratio);
  };
  return steps < config.epochs * per_epoch ? part(steps) : part(config.epochs) * per_epoch;
}

void train_task(Session& session, const Task& task, Position& position,
                const Observers& observers) {
  TaskTraining(session, task, position, observers).run();
}

std::vector<Sample> epoch_order(const Config& config, int64_t task, int64_t epoch,
                                const std::vector<Sample>& samples) {
  if (config.stream.order != "shuffled") return samples;
  return shuffled(samples, static_cast<uint64_t>(config.seed), static_cast<uint64_t>(task),
                  static_cast<uint64_t>(epoch));
}

}  // namespace rep
