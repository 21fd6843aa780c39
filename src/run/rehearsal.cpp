#include "run/rehearsal.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "data/loader.h"
#include "run/evaluation.h"
#include "run/loops.h"
#include "run/session.h"
#include "run/step_costs.h"
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

int64_t count_of(const std::vector<Sample>& samples) {
  return static_cast<int64_t>(samples.size());
}

// The first task that has images to train on: joint learning's only one.
int64_t first_trained(const Stream& stream) {
  const auto found = std::find_if(stream.tasks.begin(), stream.tasks.end(),
                                  [](const Task& task) { return !task.train.empty(); });
  return found == stream.tasks.end() ? 0 : found->index;
}

class Rehearsal {
 public:
  Rehearsal(const Config& config, const RehearsalOptions& options)
      : wanted_steps_(options.steps),
        few_(options.few_images),
        session_(open_session(few_ ? with_few_images(config) : config)),
        at_once_(
            few_ ? std::min(std::max<int64_t>(1, session_.learner.backbone->min_training_batch()),
                            config.train.batch_size)
                 : config.train.batch_size),
        first_(first_trained(session_.stream)) {
    forecast_.notes = session_.notes;
  }

  Forecast run() {
    for (const Task& task : tasks()) rehearse_task(task);
    checkpoint();
    test();
    for (const Task& task : tasks()) book_steps(task.index);
    return forecast_;
  }

 private:
  Learner& learner() { return session_.learner; }
  const StepPlanner& planner() const { return session_.learner.efficiency->planner; }
  bool caches_train() const { return session_.learner.efficiency->queries.caches_train(); }
  const TrainConfig& train_config() const { return session_.config.train; }
  const std::vector<Task>& tasks() const { return session_.stream.tasks; }
  int64_t last() const { return static_cast<int64_t>(tasks().size()) - 1; }

  static Config with_few_images(Config config) {
    config.eval.batch_size = 1;
    config.train.micro_batch_size = 0;
    return config;
  }

  // Where queries are cached, every task's steps decide what its end still has to compute.
  bool has_steps(int64_t task) const {
    return task == first_ || task == last() || (task == 1 && !few_) || caches_train();
  }

  // Images to look at in any case: once one whole batch, for the memory that it takes.
  int64_t at_least(const Task& task) const {
    return task.index == first_ ? session_.learner.images->batch_size() : 0;
  }

  void rehearse_task(const Task& task) {
    Method& method = *learner().method;
    reset_peak_tensor_bytes();
    learner().images->set_task(task);
    learner().images->visit_only(kVisitedPerClass, at_least(task), [] {
      const Amount now = amount_of(metered());
      return TaskImages::Spent{now.macs, now.seconds, tensor_bytes()};
    });
    const TaskImages::Spent before = learner().images->unvisited();
    Amount around = measure([&] { method.begin_task(task); });
    forecast_.parameters = learner().parameters();
    const int64_t begun = learner().images->unvisited().bytes - before.bytes;
    images_.push_back(training_images(task));
    steps_.push_back(steps_of_task(train_config(), images_.back()));
    if (steps_.back() > 0 && has_steps(task.index)) take_steps(task);
    // Features are held twice while they are put together.
    raise(forecast_.peak.train, peak_tensor_bytes() + 2 * begun);

    reset_peak_tensor_bytes();
    around += measure([&] { method.end_task(task); });
    const TaskImages::Spent& after = learner().images->unvisited();
    raise(forecast_.peak.task_end, peak_tensor_bytes() + 2 * (after.bytes - before.bytes - begun));
    around += {after.macs - before.macs, after.seconds - before.seconds};
    forecast_.train_macs += around.macs;
    forecast_.seconds += around.seconds;
    total_steps_ += steps_.back();
    if (task.index == 0 && last() > 0) probe_ = test_cost(task, few_ ? 1 : kProbe);
  }

  // Images of the method's own training set; 0: there is nothing to step.
  int64_t training_images(const Task& task) {
    Method& method = *learner().method;
    if (method.parameters().empty()) return 0;
    const int64_t known = method.training_images(session_.stream, task);
    return known >= 0 ? known : count_of(method.training_set(*session_.train, task).samples);
  }

  int64_t batches(int64_t images) const {
    return Loader::batches(images, train_config().batch_size, train_config().drop_last);
  }

  // Of a full batch, what step number `step` over so many images has; the mean over an epoch.
  double share_of(int64_t step, int64_t images) const {
    const auto batch = static_cast<double>(train_config().batch_size);
    const int64_t n = batches(images);
    const bool full = train_config().drop_last || step % n + 1 < n;
    const int64_t before = full ? 0 : (n - 1) * train_config().batch_size;
    return std::min(1.0, static_cast<double>(images - before) / batch);
  }
  double mean_share(int64_t images) const {
    const auto n = static_cast<double>(batches(images));
    return (n - 1 + share_of(batches(images) - 1, images)) / n;
  }

  double work_of(const BlockTokens& tokens) const {
    return tokens_work(tokens.forward, tokens.backward, session_.learner.backbone->feature_dim());
  }

  // Some steps of `task` from `first` on, in one of the phases of train.decoupled; of few images
  // where so asked for.
  std::vector<MeasuredStep> train(const Task& task, int64_t images, int64_t first, int64_t count,
                                  bool head_only = false) {
    const TrainConfig whole = train_config();
    session_.config.train.macs = session_.config.train.seconds = 0;
    session_.config.train.batch_size = at_once_;
    session_.config.train.iterations = first + count;
    session_.config.train.decoupled.phase_ratio = head_only ? 0 : 1;
    Position position;
    position.task = task.index;
    position.iteration = first;
    position.total_iterations = total_steps_ + first;
    std::vector<MeasuredStep> measured;
    PhaseCost before = metered();
    AfterEachStep watch([&](const Step& step) {
      const PhaseCost now = metered();
      const double share =
          few_ ? static_cast<double>(step.images) / static_cast<double>(whole.batch_size)
               : share_of(step.iteration - 1, images);
      measured.push_back({now - before, work_of(step.tokens), share});
      before = now;
      if (measured.size() > 1 || session_.config.eval.every == 0) return;
      test_within(task);
      before = metered();
    });
    train_task(session_, task, position, {&watch});
    session_.config.train = whole;
    return measured;
  }

  // Beside what training holds: a loader's batches in flight, not of images that test() looks at.
  void test_within(Task task) {
    const int64_t batch = session_.config.eval.batch_size, all = count_of(task.test);
    const int64_t count = std::min(Loader::batches_in_flight(train_config().workers) * batch,
                                   std::max<int64_t>(0, all - batch));
    task.test.erase(task.test.begin(), task.test.end() - count);
    evaluate(session_, task, task.last_label());
  }

  void take_steps(const Task& task) {
    const int64_t batch = at_once_;
    // Where training images' queries are cached, a later epoch's step costs less: a few images
    // stand for the task, so that both come by.
    const int64_t ring = Loader::batches_in_flight(train_config().workers);
    Task part = task;
    int64_t images = images_.back(), fresh = 0;
    if (caches_train() && images == count_of(task.train)) {
      // With those that are looked at at the task's end: by then a run knows them all.
      const int64_t looked_at =
          std::max(put_first_of_each_class(part.train, kVisitedPerClass), at_least(task));
      const int64_t few = std::max(ring, (looked_at + batch - 1) / batch) * batch;
      images = std::min(images, few);
      part.train.resize(static_cast<size_t>(images));
      fresh = Loader::batches(images, batch, train_config().drop_last);
    }
    const int64_t both = first_head_step(train_config(), images_.back());
    const int64_t count = std::min(both, fresh + wanted_steps_);
    if (count > 0) {
      costs_[task.index] = mean_step(train(part, images, 0, count), static_cast<size_t>(fresh));
      draw_all(task);
      fresh = 0;
    }
    const int64_t alone = std::min(steps_.back() - both, fresh + wanted_steps_);
    if (alone == 0) return;
    head_costs_[task.index] = mean_step(train(part, images, count, alone, /*head_only=*/true),
                                        static_cast<size_t>(fresh));
  }

  // The blocks that each step of the task will run, and the step that runs the most.
  void draw_all(const Task& task) {
    if (!planner().drops_blocks() || few_) return;  // what few images hold nobody asks
    const int64_t steps = first_head_step(train_config(), images_.back());
    const int64_t fullest = work_of_steps(task.index, total_steps_, steps).second;
    if (fullest < wanted_steps_) return;
    train(task, images_.back(), std::max<int64_t>(0, fullest - 1), fullest > 0 ? 2 : 1);
  }

  // Sum of tokens_work over the task's steps, and the step at which it is highest.
  std::pair<double, int64_t> work_of_steps(int64_t task, int64_t before, int64_t steps) {
    const int64_t prompts = learner().method->prompt_tokens();
    const int64_t per_epoch = std::max<int64_t>(1, batches(images_[static_cast<size_t>(task)]));
    double sum = 0, highest = -1;
    int64_t fullest = 0;
    for (int64_t step = 0; step < steps; ++step) {
      const StepTime time{session_.config.seed, task, step, before + step, step / per_epoch};
      const double work = work_of(planner().train_tokens(time, prompts));
      sum += work;
      if (work > highest) fullest = step;
      highest = std::max(highest, work);
    }
    return {sum, fullest};
  }

  void book_steps(int64_t task) {
    const int64_t images = images_[static_cast<size_t>(task)];
    const int64_t all = steps_[static_cast<size_t>(task)];
    int64_t steps = std::min(all, first_head_step(train_config(), images));
    book_head_steps(task, all - steps);
    if (steps == 0 || costs_.empty()) return;
    const StepCost cost = interpolated(costs_, task);
    // Relative to the steps measured: how much of the blocks a mean step runs.
    double share = 1;
    if (planner().changes_training() && cost.work > 0) {
      share =
          work_of_steps(task, booked_steps_, steps).first / static_cast<double>(steps) / cost.work;
    }
    const double batch = mean_share(images);
    const Amount later = batch * (cost.select + share * cost.rest);
    booked_steps_ += all;
    const TrainConfig& budget = train_config();
    const auto cut = [&](double limit, double each) {
      if (limit > 0 && each > 0) {
        steps = std::min(steps, static_cast<int64_t>(std::ceil(limit / each)));
      }
    };
    cut(budget.macs, later.macs);
    cut(budget.seconds, later.seconds);
    Amount total = static_cast<double>(steps) * later;
    if (caches_train()) {
      // Computed in the task's first epoch only.
      const int64_t fresh = std::min(steps, (all + budget.epochs - 1) / budget.epochs);
      total = static_cast<double>(steps - fresh) * later +
              static_cast<double>(fresh) * batch * (cost.first_select + share * cost.first_rest);
    }
    book(steps, total);
  }

  // Those of the second phase of train.decoupled, which all run the same blocks.
  void book_head_steps(int64_t task, int64_t steps) {
    if (steps == 0 || head_costs_.empty()) return;
    const StepCost cost = interpolated(head_costs_, task);
    const double batch = mean_share(images_[static_cast<size_t>(task)]);
    book(steps, static_cast<double>(steps) * (batch * (cost.select + cost.rest)));
  }

  void book(int64_t steps, const Amount& total) {
    forecast_.steps += steps;
    forecast_.step_macs += total.macs;
    forecast_.train_macs += total.macs;
    forecast_.seconds += total.seconds;
  }

  // What testing an image costs whose query is not cached, by a batch of at most `images`.
  Amount test_cost(const Task& task, int64_t images) {
    Task part = task;
    part.test.resize(std::min(part.test.size(), static_cast<size_t>(images)));
    if (part.test.empty()) return {};
    const int64_t seen = task.last_label();
    const Amount cost = measure([&] { evaluate(session_, part, seen); });
    return 1 / static_cast<double>(part.test.size()) * cost;
  }

  void test() {
    const auto largest = std::max_element(
        tasks().rbegin(), tasks().rend(),
        [](const Task& a, const Task& b) { return a.test.size() < b.test.size(); });
    Task task = *largest;
    // Images whose queries are not cached yet.
    const int64_t probed = few_ ? 1 : kProbe;
    if (probe_.macs > 0 && task.index == 0 && count_of(task.test) > probed) {
      task.test.erase(task.test.begin(), task.test.begin() + probed);
    }
    if (task.test.empty()) return;
    reset_peak_tensor_bytes();
    const int64_t all = count_of(task.test), batch = std::min(session_.config.eval.batch_size, all);
    const auto rest = other_batches(task.test, batch);
    task.test.resize(static_cast<size_t>(batch));
    const int64_t seen = tasks().back().last_label();
    const auto tested = [&] {
      return 1 / static_cast<double>(batch) * measure([&] { evaluate(session_, task, seen); });
    };
    const Amount first = tested();
    raise(forecast_.peak.test, peak_tensor_bytes());
    book_tests(first, tested());
  }

  // A loader of what one batch alone does not take of the ring's places.
  std::unique_ptr<Loader> other_batches(const std::vector<Sample>& samples, int64_t batch) {
    const int64_t all = count_of(samples);
    const int64_t ring = std::min(Loader::batches_in_flight(train_config().workers),
                                  Loader::batches(all, batch, /*drop_last=*/false));
    std::vector<Sample> others;
    for (int64_t i = 0; i < (ring - 1) * batch; ++i) {
      others.push_back(samples[static_cast<size_t>(i % all)]);
    }
    Loader::Options options;
    options.batch_size = batch;
    options.workers = train_config().workers;
    options.device = learner().device;
    return std::make_unique<Loader>(*session_.test, std::move(others),
                                    learner().transform(session_.config, /*train=*/false), options);
  }

  // Of an image whose query is not cached, and of one whose is: every image after each task from
  // its own on that is tested.
  void book_tests(const Amount& first, const Amount& again) {
    book_anytime_tests(again);
    for (const Task& task : tasks()) {
      bool computes_query = true;
      for (int64_t after = task.index; after <= last(); ++after) {
        if (!tasks()[static_cast<size_t>(after)].is_tested) continue;
        // From the first task's cost to the last's.
        const double early = probe_.macs > 0 && first.macs > 0 ? probe_.macs / first.macs : 1;
        const double grown = last() == 0 ? 1
                                         : early + (1 - early) * static_cast<double>(after) /
                                                       static_cast<double>(last());
        const Amount cost =
            static_cast<double>(task.test.size()) * grown * (computes_query ? first : again);
        computes_query = false;
        forecast_.test_macs += cost.macs;
        forecast_.seconds += cost.seconds;
      }
    }
  }

  // Each of the images of all tasks begun by then; the first test of an image is booked elsewhere.
  void book_anytime_tests(const Amount& again) {
    const auto until = anytime_tests_until(session_.stream, session_.config.eval.every);
    int64_t images = 0;
    for (size_t t = 0; t < until.size(); ++t) {
      images += count_of(tasks()[t].test);
      const int64_t tests = until[t] - (t > 0 ? until[t - 1] : 0);
      const Amount cost = static_cast<double>(tests * images) * again;
      forecast_.test_macs += cost.macs;
      forecast_.seconds += cost.seconds;
    }
  }

  // What is carried on, and the memory that writing it takes, when all that the method stores is
  // full.
  void checkpoint() {
    reset_peak_tensor_bytes();
    {
      State state;
      learner().state(state);
    }
    const int64_t written = peak_tensor_bytes();
    const int64_t missing = learner().method->bytes_until_full(session_.train->size());
    if (missing > 0) {
      forecast_.notes.emplace_back(
          "stored images count as many as the buffer holds, each as large as those stored here");
    }
    forecast_.state_bytes = learner().state_bytes() + missing;
    raise(forecast_.peak.checkpoint, written + missing);
  }

  static void raise(int64_t& highest, int64_t value) { highest = std::max(highest, value); }

  const int64_t wanted_steps_;
  const bool few_;
  Session session_;
  const int64_t at_once_;                   // images of a rehearsed step
  const int64_t first_;                     // task with images to train on
  std::vector<int64_t> images_;             // that each task trains on
  std::vector<int64_t> steps_;              // of each task
  std::map<int64_t, StepCost> costs_;       // of the tasks that were rehearsed
  std::map<int64_t, StepCost> head_costs_;  // of their steps that train the head alone
  Amount probe_;                            // testing an image after the first task
  int64_t total_steps_ = 0, booked_steps_ = 0;
  Forecast forecast_;
};

}  // namespace

Forecast rehearse(const Config& config, const RehearsalOptions& options) {
  return Rehearsal(config, options).run();
}

}  // namespace rep
