#include "run/anytime.h"

#include <algorithm>

#include "core/error.h"
#include "run/evaluation.h"
#include "run/loops.h"

namespace rep {

void AnytimeTests::begin_training(const Task& task, int64_t, int64_t done, Optimizer&) {
  shown_.assign(static_cast<size_t>(session_.stream.num_classes()), false);
  images_ = 0;
  for (const Task& earlier : session_.stream.tasks) {
    if (earlier.index >= task.index) break;
    images_ += static_cast<int64_t>(earlier.train.size());
    for (const Sample& sample : earlier.train) shown_[static_cast<size_t>(sample.label)] = true;
  }
  order_ = epoch_order(session_.config, task.index, /*epoch=*/0, task.train);
  place_ = 0;
  show(done * session_.config.train.batch_size);
}

void AnytimeTests::show(int64_t count) {
  const auto end = std::min(static_cast<int64_t>(order_.size()), place_ + count);
  images_ += end - place_;
  for (; place_ < end; ++place_) {
    shown_[static_cast<size_t>(order_[static_cast<size_t>(place_)].label)] = true;
  }
}

void AnytimeTests::after_step(const Step& step, Optimizer&) {
  const int64_t every = session_.config.eval.every, before = images_ / every;
  show(step.images);
  if (images_ / every == before) return;
  const Correct correct = [&] {
    try {
      return evaluate_shown(session_, shown_);
    } catch (const Interrupted&) {  // a checkpoint of now would lack this test
      throw Interrupted("stopped in a test within a task; the last checkpoint is before it");
    }
  }();
  result_.add_anytime(
      {images_,
       100.0 * static_cast<double>(correct.class_incremental) / static_cast<double>(correct.images),
       std::count(shown_.begin(), shown_.end(), true)});
}

}  // namespace rep
