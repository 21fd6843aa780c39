#include "run/evaluation.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/interrupt.h"
#include "data/loader.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

namespace {

// The labels [B] of the highest of logits [B, C] among the classes [first, last).
torch::Tensor predicted_labels(const torch::Tensor& logits, int64_t first, int64_t last) {
  return logits.narrow(1, first, last - first).argmax(1).add(first);
}

// Collects [B]s of labels. On a GPU reading one waits for its batch, so there all are read at the
// end.
class LabelReader {
 public:
  void add(const torch::Tensor& labels) {
    if (!labels.is_cpu()) return later_.push_back(labels);
    const auto* const first = labels.data_ptr<int64_t>();
    read_.insert(read_.end(), first, first + labels.numel());
  }
  const std::vector<int64_t>& read() {
    std::vector<torch::Tensor> rest;
    rest.swap(later_);
    if (!rest.empty()) add(torch::cat(rest).cpu());
    return read_;
  }

 private:
  std::vector<int64_t> read_;
  std::vector<torch::Tensor> later_;
};

// The whole of which this process has the part that begins at `first`.
std::vector<int64_t> gathered(const World& world, const std::vector<int64_t>& part, int64_t first,
                              size_t size) {
  std::vector<int64_t> whole(size);
  std::copy(part.begin(), part.end(), whole.begin() + first);
  if (world.size() > 1 && size > 0) {
    torch::Tensor sums = torch::from_blob(whole.data(), {static_cast<int64_t>(size)}, torch::kLong);
    world.sum(sums);
  }
  return whole;
}

void stop_if_told() {
  if (interrupted()) throw Interrupted("stopped while testing; the task's training is saved");
}

// What `count` (int64 [n]) says of the logits and labels of each batch of test images, summed up
// over all processes.
using Count = std::function<torch::Tensor(const Batch& batch, const torch::Tensor& logits)>;
torch::Tensor sum_over_tests(Session& session, const std::vector<Sample>& samples,
                             const Count& count, int64_t counts) {
  const PhaseScope phase(Phase::kEval);
  const c10::InferenceMode inference;
  Learner& learner = session.learner;
  Loader::Options options;
  options.batch_size = session.config.eval.batch_size;
  options.workers = session.config.train.workers;
  options.device = learner.device;
  const auto [first, last] = learner.world->part_of(static_cast<int64_t>(samples.size()));
  Loader loader(*session.test, {samples.begin() + first, samples.begin() + last},
                learner.transform(session.config, /*train=*/false), options);
  torch::Tensor sums = torch::zeros({counts}, torch::device(learner.device).dtype(torch::kLong));
  stop_if_told();  // here also a process without images
  Batch batch;
  while (loader.next(batch)) {
    stop_if_told();
    sums += count(batch, learner.method->predict(batch));
  }
  const torch::Tensor stopped = torch::tensor({static_cast<int64_t>(signal_received())});
  torch::Tensor all = torch::cat({sums.cpu(), stopped});
  learner.world->sum(all);
  if (all[counts].item<int64_t>() > 0) request_stop();  // before the next test, or after a step
  return all;
}

[[noreturn]] void fail_of_nans(const std::string& of) {
  throw Diverged("some predictions for the test images of " + of + " are not numbers (NaN)");
}

}  // namespace

Correct evaluate(Session& session, const Task& task, int64_t seen, const Observers& observers) {
  LabelReader predictions;
  const auto count = [&](const Batch& batch, const torch::Tensor& logits) {
    const int64_t candidates = session.config.eval.classes == "all" ? logits.size(1) : seen;
    const torch::Tensor predicted = predicted_labels(logits, 0, candidates);
    const torch::Tensor within = predicted_labels(logits, task.first_label, task.last_label());
    predictions.add(predicted);
    for (Observer* one : observers) one->after_test_batch({batch, logits, predicted, candidates});
    return torch::stack({predicted.eq(batch.labels).sum(), within.eq(batch.labels).sum(),
                         logits.narrow(1, 0, candidates).isnan().any().to(torch::kLong)});
  };
  const torch::Tensor sums = sum_over_tests(session, task.test, count, 3);
  if (sums[2].item<int64_t>() > 0) {
    fail_of_nans("task " + std::to_string(task.index + 1) + "/" +
                 std::to_string(session.stream.tasks.size()));
  }
  const World& world = *session.learner.world;
  const auto images = static_cast<int64_t>(task.test.size());
  Correct correct{sums[0].item<int64_t>(), sums[1].item<int64_t>(), images, {}};
  correct.predicted = gathered(*session.learner.world, predictions.read(),
                               world.part_of(images).first, task.test.size());
  for (Observer* one : observers) one->end_test(task);
  return correct;
}

Correct evaluate_shown(Session& session, const std::vector<bool>& shown) {
  std::vector<Sample> samples;
  for (const Task& task : session.stream.tasks) {
    for (const Sample& sample : task.test) {
      if (shown[static_cast<size_t>(sample.label)]) samples.push_back(sample);
    }
  }
  std::vector<int64_t> labels;
  for (size_t label = 0; label < shown.size(); ++label) {
    if (shown[label]) labels.push_back(static_cast<int64_t>(label));
  }
  const torch::Tensor among = torch::tensor(labels, torch::kLong).to(session.learner.device);
  const auto count = [&](const Batch& batch, const torch::Tensor& logits) {
    const torch::Tensor candidates = logits.index_select(1, among);
    return torch::stack({among.index_select(0, candidates.argmax(1)).eq(batch.labels).sum(),
                         candidates.isnan().any().to(torch::kLong)});
  };
  const torch::Tensor sums = sum_over_tests(session, samples, count, 2);
  if (sums[1].item<int64_t>() > 0) fail_of_nans("the classes shown so far");
  return {sums[0].item<int64_t>(), 0, static_cast<int64_t>(samples.size()), {}};
}

}  // namespace rep
