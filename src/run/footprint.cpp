#include "run/footprint.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "data/loader.h"
#include "run/evaluation.h"
#include "run/loops.h"
#include "run/session.h"
#include "tensor/meter.h"
#include "tensor/resident.h"
#include "tensor/torch.h"

namespace rep {

namespace {

constexpr int64_t kLookedAtPerClass = 2;

// A task may begin with any draw of blocks: the fullest step counts.
Config few_images(Config config, int64_t images) {
  config.eval.batch_size = std::min(images, config.eval.batch_size);
  config.efficiency.layer_dropping.kind = "none";
  config.train.micro_batch_size = 0;
  config.train.macs = config.train.seconds = 0;
  config.train.decoupled.phase_ratio = 1;
  return config;
}

// From here on the peaks of tensors and of the process are of what follows.
void reset_peaks() {
  release_unused_memory();
  reset_peak_rss_bytes();
  reset_peak_tensor_bytes();
}

Session open_measured(const Config& config, int64_t& loading) {
  reset_peaks();
  Session session = open_session(config);
  loading = peak_rss_bytes();
  return session;
}

class Probe {
 public:
  explicit Probe(const Config& config)
      : config_(config), session_(open_measured(few_images(config, 1), footprint_.loading)) {
    const Learner& learner = session_.learner;
    footprint_.divides_batches = learner.why_batches_stay_whole(config).empty();
    footprint_.divides_tests = !learner.method->predicts_by_batch();
    one_ = std::min(std::max<int64_t>(1, learner.backbone->min_training_batch()),
                    config.train.batch_size);
    two_ = std::min(2 * one_, config.train.batch_size);
    const int64_t side = learner.backbone->image_size();
    footprint_.image_bytes = 3 * side * side * static_cast<int64_t>(sizeof(float));
  }

  Footprint run() {
    const int64_t last = static_cast<int64_t>(session_.stream.tasks.size()) - 1;
    int64_t first = 0;  // that has images to train on: joint learning's only one
    while (first < last && tasks()[static_cast<size_t>(first)].train.empty()) ++first;
    for (const Task& task : tasks()) {
      go_through(task, task.index == first, task.index == last);
    }
    reset_peaks();
    {
      State state;
      session_.learner.state(state);
    }
    footprint_.checkpoint = peak_tensor_bytes();
    test();
    const int64_t stored = session_.learner.method->bytes_until_full(session_.train->size());
    for (BytesLine* line : {&footprint_.step, &footprint_.test}) {
      line->fixed += static_cast<double>(stored);
    }
    for (int64_t* bytes : {&footprint_.begin, &footprint_.task_end, &footprint_.checkpoint}) {
      *bytes += stored;
    }
    footprint_.beside = std::max<int64_t>(0, footprint_.beside);
    return footprint_;
  }

 private:
  const std::vector<Task>& tasks() const { return session_.stream.tasks; }

  // Call after reset_peaks and the work.
  int64_t peak() {
    footprint_.beside = std::max(footprint_.beside, peak_rss_bytes() - peak_tensor_bytes());
    return peak_tensor_bytes();
  }

  void go_through(const Task& task, bool is_first, bool is_last) {
    Method& method = *session_.learner.method;
    TaskImages& images = *session_.learner.images;
    reset_peaks();
    images.set_task(task);
    images.visit_only(kLookedAtPerClass, is_first ? images.batch_size() : 0, [] {
      return TaskImages::Spent{0, 0, tensor_bytes()};
    });
    const int64_t before = images.unvisited().bytes;
    method.begin_task(task);
    const int64_t begun = images.unvisited().bytes - before;
    // Features are held twice while they are put together.
    footprint_.begin = std::max(footprint_.begin, peak() + 2 * begun);
    if ((is_first || is_last) && !method.parameters().empty()) {
      steps(task, is_first, is_last, 2 * begun);
    }
    reset_peaks();
    method.end_task(task);
    footprint_.task_end =
        std::max(footprint_.task_end, peak() + 2 * (images.unvisited().bytes - before - begun));
  }

  void steps(const Task& task, bool is_first, bool is_last, int64_t more) {
    const PhaseCost before = metered();
    const int64_t of_one = step(task, one_);
    if (is_first) {
      const PhaseCost cost = metered() - before;
      const auto macs = [&](Phase phase) {
        return static_cast<double>(cost.macs[static_cast<size_t>(phase)]);
      };
      const double all = macs(Phase::kSelect) + macs(Phase::kForward) + macs(Phase::kBackward);
      footprint_.forward_share = all > 0 ? macs(Phase::kForward) / all : 0;
      vary(task);
      if (footprint_.divides_batches && 2 * one_ <= config_.train.batch_size) {
        footprint_.parts = std::max<int64_t>(0, step(task, one_, /*parts=*/2) - of_one);
      }
    }
    if (two_ > one_) {
      const double slope =
          static_cast<double>(step(task, two_) - of_one) / static_cast<double>(two_ - one_);
      footprint_.step.an_image = std::max(footprint_.step.an_image, slope);
    }
    hold_at_least(of_one + more, one_);
    // What it replays beside a batch is known once it has stored one.
    if (is_last && !footprint_.divides_batches) {
      hold_at_least(step(task, config_.train.batch_size) + more, config_.train.batch_size);
    }
  }

  // The line of a step comes to no less than so many bytes with so many images.
  void hold_at_least(int64_t bytes, int64_t images) {
    BytesLine& line = footprint_.step;
    line.fixed = std::max(line.fixed,
                          static_cast<double>(bytes) - line.an_image * static_cast<double>(images));
  }

  // The same step, recomputing.
  void vary(const Task& task) {
    const auto vit = std::dynamic_pointer_cast<VisionTransformerImpl>(session_.learner.backbone);
    if (!vit) return;
    // Compared with a step that finds the same features cached.
    const int64_t as_asked = step(task, one_);
    const auto saved = [&] {
      return std::max(0.0,
                      static_cast<double>(as_asked - step(task, one_)) / static_cast<double>(one_));
    };
    footprint_.depth = vit->options.depth;
    footprint_.entering =
        static_cast<double>((vit->options.num_patches() + vit->options.extra_tokens() + 1 +
                             session_.learner.method->prompt_tokens()) *
                            vit->options.embed_dim) *
        sizeof(float);
    vit->recompute_mlps(1);
    footprint_.mlps = saved();
    vit->recompute_mlps(config_.backbone.recompute);
    vit->recompute_blocks(1);
    footprint_.blocks = saved();
    vit->recompute_blocks(config_.backbone.recompute_blocks);
  }

  // Peak of two steps of so many images in each part: the first lacks the optimiser's state.
  int64_t step(const Task& task, int64_t images, int64_t parts = 1) {
    TrainConfig& train = session_.config.train;
    const TrainConfig whole = train;
    train.batch_size = parts * images;
    train.micro_batch_size = parts > 1 ? images : 0;
    train.iterations = 2;
    Position position;
    position.task = task.index;
    reset_peaks();
    train_task(session_, task, position);
    const int64_t bytes = peak();
    train = whole;
    return bytes;
  }

  // Of one image and of two; a loader's places for the others are added.
  void test() {
    const auto largest = std::max_element(
        tasks().begin(), tasks().end(),
        [](const Task& a, const Task& b) { return a.test.size() < b.test.size(); });
    const auto all = static_cast<int64_t>(largest->test.size());
    footprint_.test_images = all;
    const auto tested = [&](int64_t images) {
      Task task = *largest;
      task.test.resize(static_cast<size_t>(images));
      session_.config.eval.batch_size = images;
      reset_peaks();
      evaluate(session_, task, tasks().back().last_label());
      return static_cast<double>(peak());
    };
    if (all == 0) return;
    const double one = tested(1), two = all > 1 ? tested(2) : one;
    const int64_t ring = Loader::batches_in_flight(config_.train.workers);
    footprint_.test.an_image =
        std::max(0.0, two - one) + static_cast<double>((ring - 1) * footprint_.image_bytes);
    footprint_.test.fixed = one - std::max(0.0, two - one);
  }

  const Config config_;
  Footprint footprint_;
  Session session_;
  int64_t one_ = 1, two_ = 2;
};

}  // namespace

int64_t BytesLine::at(int64_t images) const {
  return std::llround(fixed + an_image * static_cast<double>(images));
}

Footprint measure_footprint(const Config& config) { return Probe(config).run(); }

}  // namespace rep
