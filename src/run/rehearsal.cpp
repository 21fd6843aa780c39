#include "run/rehearsal.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>

#include "core/error.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "data/device_images.h"
#include "data/loader.h"
#include "data/stream.h"
#include "run/learner.h"
#include "run/loops.h"
#include "run/result.h"
#include "run/step_costs.h"
#include "tensor/device.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

namespace {

constexpr int64_t kVisitedPerClass = 2;
constexpr int64_t kProbe = 8;  // images of the first task's test

Amount measure(const std::function<void()>& work) {
  const PhaseCost before = metered();
  work();
  return amount_of(metered() - before);
}

std::vector<int64_t> minus(std::vector<int64_t> a, const std::vector<int64_t>& b) {
  std::transform(a.begin(), a.end(), b.begin(), a.begin(), std::minus<>());
  return a;
}

class Rehearsal {
 public:
  Rehearsal(const Config& config, int64_t steps, bool memory_only)
      : config_(config),
        wanted_steps_(steps),
        memory_only_(memory_only),
        device_(choose_device(config.device)),
        train_(open_dataset(config.dataset, Split::kTrain, config.seed, device_)),
        test_(open_dataset(config.dataset, Split::kTest, config.seed, device_)),
        stream_(cut_into_tasks(*train_, *test_, config.stream, config.seed)),
        joint_(Registry<MethodKind>::get().at(config.method.name).value.joint) {
    config_.memory_limit.clear();
    if (joint_) give_all_training_to_the_last_task(stream_);
    learner_ = std::make_unique<Learner>(config, stream_, *train_, device_);
    learner_->efficiency->remember_test_queries(test_->size());
  }

  Forecast run() {
    for (const Task& task : stream_.tasks) rehearse_task(task);
    forecast_.parameters = learner_->parameters();
    checkpoint();
    test();
    for (const Task& task : stream_.tasks) book_steps(task.index);
    return forecast_;
  }

 private:
  int64_t last() const { return static_cast<int64_t>(stream_.tasks.size()) - 1; }
  // Where queries are remembered, every task's steps decide what its end still has to compute.
  bool has_steps(int64_t task) const {
    return joint_ || task == 0 || task == last() ||
           (!memory_only_ && (task == 1 || learner_->efficiency->remembers_train_queries()));
  }

  // Images to look at in any case: once one whole batch, for the memory that it takes.
  int64_t at_least(const Task& task) const {
    return task.index == 0 || joint_ ? config_.eval.batch_size : 0;
  }

  void rehearse_task(const Task& task) {
    Method& method = *learner_->method;
    reset_peak_tensor_bytes();
    learner_->images->set_task(task);
    learner_->images->visit_only(kVisitedPerClass, at_least(task), [] {
      const Amount now = amount_of(metered());
      return TaskImages::Spent{now.macs, now.seconds, tensor_bytes()};
    });
    learner_->efficiency->clear_log();
    const TaskImages::Spent before = learner_->images->unvisited();
    Amount around = measure([&] { method.begin_task(task); });
    const int64_t begun = learner_->images->unvisited().bytes - before.bytes;
    images_.push_back(training_images(task));
    steps_.push_back(steps_of_task(config_.train, images_.back()));
    if (steps_.back() > 0 && has_steps(task.index)) take_steps(task);
    // Features are held twice while they are put together.
    raise(forecast_.peak.train, peak_tensor_bytes() + 2 * begun);

    reset_peak_tensor_bytes();
    around += measure([&] { method.end_task(task); });
    const TaskImages::Spent& after = learner_->images->unvisited();
    raise(forecast_.peak.task_end, peak_tensor_bytes() + 2 * (after.bytes - before.bytes - begun));
    around += {after.macs - before.macs, after.seconds - before.seconds};
    forecast_.train_macs += around.macs;
    forecast_.seconds += around.seconds;
    total_steps_ += steps_.back();
    if (task.index == 0 && last() > 0 && !memory_only_) probe_ = test_cost(task, kProbe);
  }

  // Images of the method's own training set; 0: there is nothing to step.
  int64_t training_images(const Task& task) {
    Method& method = *learner_->method;
    if (method.parameters().empty()) return 0;
    const TrainingSet set = method.training_set(*train_, task);
    auto images = static_cast<int64_t>(set.samples.size());
    const auto own = static_cast<int64_t>(task.train.size());
    if (set.data != train_.get() && images > own) {  // exemplars behind the task's: all by now
      int64_t earlier = 0;
      for (int64_t i = 0; i < task.index; ++i) {
        earlier += static_cast<int64_t>(stream_.tasks[static_cast<size_t>(i)].train.size());
      }
      images = own + std::min(config_.method.effective.value("buffer_size", earlier), earlier);
    }
    return images;
  }

  int64_t batches(int64_t images) const {
    TrainConfig epoch = config_.train;
    epoch.epochs = 1;
    epoch.iterations = 0;
    return steps_of_task(epoch, images);
  }

  // Of a full batch, what step number `step` over so many images has; the mean over an epoch.
  double share_of(int64_t step, int64_t images) const {
    const auto batch = static_cast<double>(config_.train.batch_size);
    const int64_t n = batches(images);
    const bool full = config_.train.drop_last || step % n + 1 < n;
    const int64_t before = full ? 0 : (n - 1) * config_.train.batch_size;
    return std::min(1.0, static_cast<double>(images - before) / batch);
  }
  double mean_share(int64_t images) const {
    const auto n = static_cast<double>(batches(images));
    return (n - 1 + share_of(batches(images) - 1, images)) / n;
  }

  // Some steps of `task` from `first` on.
  std::vector<MeasuredStep> train(const Task& task, int64_t images, int64_t first, int64_t count) {
    Config config = config_;
    config.train.macs = config.train.seconds = 0;
    config.train.iterations = first + count;
    Position position;
    position.task = task.index;
    position.iteration = first;
    position.total_iterations = total_steps_ + first;
    Progress quiet(Progress::Verbosity::kQuiet, "");
    Result books(Json::object());
    books.begin_task(task, train_->class_names());
    std::vector<MeasuredStep> measured;
    PhaseCost before = metered();
    StepLog logged = learner_->efficiency->log();
    train_task(
        *learner_, *train_, task, last() + 1, config, position, {},
        [&](Optimizer&, const StepReport*) {
          const PhaseCost now = metered();
          const std::vector<int64_t> entered =
              minus(learner_->efficiency->log().tokens, logged.tokens);
          measured.push_back({now - before, work_since(logged),
                              share_of(position.iteration - 1, images)});
          before = now;
          if (!entered.empty() && entered.front() > 0) first_block_tokens_ = entered.front();
          logged = learner_->efficiency->log();
        },
        books, quiet);
    return measured;
  }

  // tokens_work of the step that was logged since.
  double work_since(const StepLog& before) const {
    const StepLog& log = learner_->efficiency->log();
    return tokens_work(minus(log.tokens, before.tokens),
                       minus(log.backward_tokens, before.backward_tokens),
                       learner_->backbone->feature_dim());
  }

  void take_steps(const Task& task) {
    const int64_t batch = config_.train.batch_size;
    // Where training images' queries are remembered, a later epoch's step costs less: a few images
    // stand for the task, so that both come by.
    const bool remembers = learner_->efficiency->remembers_train_queries();
    const int64_t ring = config_.train.workers + 2;
    Task part = task;
    int64_t images = images_.back(), fresh = 0;
    if (remembers && images == static_cast<int64_t>(task.train.size())) {
      // With those that are looked at at the task's end: by then a run knows them all.
      const int64_t looked_at =
          std::max(put_first_of_each_class(part.train, kVisitedPerClass), at_least(task));
      const int64_t few = std::max(ring, (looked_at + batch - 1) / batch) * batch;
      images = std::min(images, few);
      part.train.resize(static_cast<size_t>(images));
      fresh = batches(images);
    }
    const int64_t count = std::min(steps_.back(), fresh + wanted_steps_);
    costs_[task.index] = mean_step(train(part, images, 0, count), static_cast<size_t>(fresh));
    draw_all(task);
  }

  // The blocks that each step of the task will run, and the step that runs the most.
  void draw_all(const Task& task) {
    if (!learner_->efficiency->changes_training()) return;
    const int64_t fullest = work_of_steps(task.index, total_steps_, steps_.back()).second;
    if (config_.efficiency.layer_dropping.kind == "none" || fullest < wanted_steps_) return;
    train(task, images_.back(), std::max<int64_t>(0, fullest - 1), fullest > 0 ? 2 : 1);
  }

  // Sum of tokens_work over the task's steps, and the step at which it is highest.
  std::pair<double, int64_t> work_of_steps(int64_t task, int64_t before, int64_t steps) {
    const auto* vit = dynamic_cast<const VisionTransformerImpl*>(learner_->backbone.get());
    const int64_t prompts =
        vit && first_block_tokens_ > 0 ? first_block_tokens_ - 1 - vit->options.num_patches() : 0;
    double sum = 0, highest = -1;
    int64_t fullest = 0;
    const int64_t per_epoch = std::max<int64_t>(1, batches(images_[static_cast<size_t>(task)]));
    StepLog logged = learner_->efficiency->log();
    for (int64_t step = 0; step < steps; ++step) {
      learner_->efficiency->set_time({config_.seed, task, step, before + step, step / per_epoch});
      learner_->efficiency->train_plan(prompts);
      const double work = work_since(logged);
      logged = learner_->efficiency->log();
      sum += work;
      if (work > highest) fullest = step;
      highest = std::max(highest, work);
    }
    return {sum, fullest};
  }

  void book_steps(int64_t task) {
    int64_t steps = steps_[static_cast<size_t>(task)];
    if (steps == 0 || costs_.empty()) return;
    const StepCost cost = interpolated(costs_, task);
    // Relative to the steps measured: how much of the blocks a mean step runs.
    double share = 1;
    if (learner_->efficiency->changes_training() && !memory_only_ && cost.work > 0) {
      share =
          work_of_steps(task, booked_steps_, steps).first / static_cast<double>(steps) / cost.work;
    }
    const double batch = mean_share(images_[static_cast<size_t>(task)]);
    const Amount later = batch * (cost.select + share * cost.rest);
    booked_steps_ += steps;
    const TrainConfig& budget = config_.train;
    const auto cut = [&](double limit, double each) {
      if (limit > 0 && each > 0) {
        steps = std::min(steps, static_cast<int64_t>(std::ceil(limit / each)));
      }
    };
    cut(budget.macs, later.macs);
    cut(budget.seconds, later.seconds);
    Amount total = static_cast<double>(steps) * later;
    if (learner_->efficiency->remembers_train_queries()) {
      // Unknown in the task's first epoch only.
      const int64_t fresh =
          std::min(steps, (steps_[static_cast<size_t>(task)] + budget.epochs - 1) / budget.epochs);
      total = static_cast<double>(steps - fresh) * later +
              static_cast<double>(fresh) * batch * (cost.first_select + share * cost.first_rest);
    }
    forecast_.steps += steps;
    forecast_.step_macs += total.macs;
    forecast_.train_macs += total.macs;
    forecast_.seconds += total.seconds;
  }

  // What testing an image costs whose query is not known, by a batch of at most `images`.
  Amount test_cost(const Task& task, int64_t images) {
    Task part = task;
    part.test.resize(std::min(part.test.size(), static_cast<size_t>(images)));
    if (part.test.empty()) return {};
    const int64_t seen = task.last_label();
    const Amount cost = measure([&] { evaluate(*learner_, *test_, part, seen, config_); });
    return 1 / static_cast<double>(part.test.size()) * cost;
  }

  void test() {
    const auto largest = std::max_element(
        stream_.tasks.rbegin(), stream_.tasks.rend(),
        [](const Task& a, const Task& b) { return a.test.size() < b.test.size(); });
    Task task = *largest;
    // Images whose queries are not known yet.
    if (probe_.macs > 0 && task.index == 0 && task.test.size() > kProbe) {
      task.test.erase(task.test.begin(), task.test.begin() + kProbe);
    }
    if (task.test.empty()) return;
    const int64_t batch = config_.eval.batch_size, all = static_cast<int64_t>(task.test.size());
    reset_peak_tensor_bytes();
    // The places of the loader's ring that one batch alone does not take.
    const int64_t ring = std::min(config_.train.workers + 2, (all + batch - 1) / batch);
    std::vector<Sample> others;
    for (int64_t i = 0; i < (ring - 1) * std::min(batch, all); ++i) {
      others.push_back(task.test[static_cast<size_t>(i % all)]);
    }
    Loader::Options options;
    options.batch_size = std::min(batch, all);
    options.workers = config_.train.workers;
    options.device = device_;
    const Loader rest(*test_, others, learner_->transform(config_, /*train=*/false), options);

    task.test.resize(static_cast<size_t>(std::min(batch, all)));
    const int64_t seen = stream_.tasks.back().last_label();
    const auto tested = [&] {
      return 1 / static_cast<double>(task.test.size()) *
             measure([&] { evaluate(*learner_, *test_, task, seen, config_); });
    };
    const Amount first = tested();
    raise(forecast_.peak.test, peak_tensor_bytes());
    if (memory_only_) return;
    const Amount again = tested();
    for (const Task& tested_task : stream_.tasks) {
      const auto images = static_cast<double>(tested_task.test.size());
      for (int64_t after = joint_ ? last() : tested_task.index; after <= last(); ++after) {
        // From the first task's cost to the last's.
        const bool query = after == (joint_ ? last() : tested_task.index);
        const double early = probe_.macs > 0 && first.macs > 0 ? probe_.macs / first.macs : 1;
        const double grown = last() == 0 ? 1
                                         : early + (1 - early) * static_cast<double>(after) /
                                                       static_cast<double>(last());
        const Amount cost = images * grown * (query ? first : again);
        forecast_.test_macs += cost.macs;
        forecast_.seconds += cost.seconds;
      }
    }
  }

  // What is carried on, and the memory that writing it takes. A buffer of images counts as full.
  void checkpoint() {
    reset_peak_tensor_bytes();
    State state;
    learner_->state(state);
    int64_t missing = 0, stored = 0;
    for (const auto& [name, sizes] : state.tensors()) {
      const std::string suffix = "sizes";
      if (name.size() < suffix.size() ||
          name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0) {
        continue;
      }
      const std::string buffer = name.substr(0, name.size() - suffix.size());
      const int64_t rows = sizes.numel();
      const int64_t full =
          std::min(config_.method.effective.value("buffer_size", rows), train_->size());
      for (const auto& [other, tensor] : state.tensors()) {
        const std::string part =
            other.compare(0, buffer.size(), buffer) == 0 ? other.substr(buffer.size()) : "";
        if (part != "pixels" && part != "sizes" && part != "labels" && part != "indices" &&
            part != "notes") {
          continue;
        }
        if (rows == 0 || full <= rows) continue;
        const int64_t bytes = tensor.numel() * static_cast<int64_t>(tensor.element_size());
        const int64_t limit = config_.method.effective.value("buffer_bytes", int64_t{0});
        int64_t grown = bytes * full / rows;
        if (part == "pixels" && limit > 0) grown = std::min(grown, limit);
        missing += std::max<int64_t>(0, grown - bytes);
        stored += bytes;
      }
    }
    if (stored > 0) {
      forecast_.notes.emplace_back(
          "stored images count as many as the buffer holds, each as large as those stored here");
    }
    forecast_.state_bytes = state.bytes() + missing;
    raise(forecast_.peak.checkpoint, peak_tensor_bytes() + missing);
  }

  static void raise(int64_t& highest, int64_t value) { highest = std::max(highest, value); }

  Config config_;
  const int64_t wanted_steps_;
  const bool memory_only_;
  const torch::Device device_;
  const std::unique_ptr<Dataset> train_, test_;
  Stream stream_;
  const bool joint_;
  std::unique_ptr<Learner> learner_;
  std::vector<int64_t> images_;        // that each task trains on
  std::vector<int64_t> steps_;         // of each task
  std::map<int64_t, StepCost> costs_;  // of the tasks that were rehearsed
  Amount probe_;                       // testing an image after the first task
  int64_t first_block_tokens_ = 0;     // in a step that ran it
  int64_t total_steps_ = 0, booked_steps_ = 0;
  Forecast forecast_;
};

}  // namespace

int64_t Forecast::Peaks::highest() const { return std::max({train, task_end, test, checkpoint}); }

Forecast rehearse(const Config& config, int64_t steps, bool memory_only) {
  seed_everything(config.seed);
  return Rehearsal(config, steps, memory_only).run();
}

}  // namespace rep
