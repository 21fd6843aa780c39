#include "data/task_images.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

namespace rep {

namespace {

constexpr uint64_t kNoTask = uint64_t{1} << 32;

}  // namespace

int64_t put_first_of_each_class(std::vector<Sample>& samples, int64_t per_class) {
  std::map<int64_t, int64_t> seen;
  std::vector<Sample> front, behind;
  for (const Sample& sample : samples) {
    (++seen[sample.label] <= per_class ? front : behind).push_back(sample);
  }
  samples = front;
  samples.insert(samples.end(), behind.begin(), behind.end());
  return static_cast<int64_t>(front.size());
}

TaskImages::TaskImages(const Dataset& train, Transform train_view, Transform test_view,
                       Options options, torch::Device device)
    : train_(train),
      train_view_(train_view),
      test_view_(test_view),
      options_(options),
      device_(device),
      workers_(std::make_unique<Workers>(options.workers)),
      labels_(static_cast<size_t>(train.size()), -1) {}

void TaskImages::set_task(const Task& task) {
  labels_.assign(labels_.size(), -1);
  for (const Sample& sample : task.train) {
    labels_[static_cast<size_t>(sample.index)] = sample.label;
  }
}

int64_t TaskImages::label(int64_t index) const {
  const int64_t label = labels_.at(static_cast<size_t>(index));
  if (label < 0) {
    throw std::logic_error("a method asked for training image " + std::to_string(index) +
                           ", which is not of the task in hand");
  }
  return label;
}

Image TaskImages::image(int64_t index) const {
  label(index);  // of the task in hand, or none
  return train_.image(index);
}

void TaskImages::each_batch(const std::vector<Sample>& samples,
                            const std::function<void(const Batch&)>& visit) const {
  visit_all(samples, test_view_, 0, visit);
}

void TaskImages::each_random_batch(const std::vector<Sample>& samples, uint64_t key,
                                   const std::function<void(const Batch&)>& visit) const {
  visit_all(samples, train_view_, key, visit);
}

void TaskImages::visit_all(const std::vector<Sample>& samples, const Transform& view, uint64_t key,
                           const std::function<void(const Batch&)>& visit) const {
  for (const Sample& sample : samples) label(sample.index);  // of the task in hand, all of them
  if (samples.empty()) return;
  Loader::Options options;
  options.batch_size = options_.batch_size;
  options.workers = options_.workers;
  options.device = device_;
  options.seed = static_cast<uint64_t>(options_.seed);
  options.task = kNoTask;  // whose epochs' views are others
  options.epoch = key;
  std::vector<Sample> order = samples;
  const auto all = static_cast<int64_t>(samples.size());
  const int64_t visited =
      per_class_ > 0
          ? std::min(all, std::max(at_least_, put_first_of_each_class(order, per_class_)))
          : all;
  Loader loader(train_, std::move(order), view, options);
  const Spent before = meter_ ? meter_() : Spent{};
  Batch batch;
  for (int64_t left = visited; left > 0 && loader.next(batch); left -= batch.size()) {
    const int64_t n = std::min(left, batch.size());
    visit({batch.images.narrow(0, 0, n), batch.labels.narrow(0, 0, n),
           batch.indices.narrow(0, 0, n)});
  }
  if (visited == all) return;
  const double others = static_cast<double>(all - visited) / static_cast<double>(visited);
  const Spent after = meter_();
  unvisited_.macs += others * (after.macs - before.macs);
  unvisited_.seconds += others * (after.seconds - before.seconds);
  unvisited_.bytes += std::llround(others * static_cast<double>(after.bytes - before.bytes));
}

torch::Tensor TaskImages::augment(int64_t count, const std::function<Image(int64_t)>& picture,
                                  uint64_t key) const {
  return view_all(count, picture, train_view_, static_cast<uint64_t>(options_.seed), key);
}

torch::Tensor TaskImages::prepare(int64_t count,
                                  const std::function<Image(int64_t)>& picture) const {
  return view_all(count, picture, test_view_, 0, 0);
}

torch::Tensor TaskImages::view_all(int64_t count, const std::function<Image(int64_t)>& picture,
                                   const Transform& view, uint64_t seed, uint64_t key) const {
  const int64_t size = view.size();
  const torch::Tensor batch = torch::empty({count, 3, size, size}, torch::kFloat);
  float* const out = batch.data_ptr<float>();
  workers_->for_each(count, [&](int64_t i) {
    const Random random(
        {seed, static_cast<uint64_t>(RandomUse::kReplayView), key, static_cast<uint64_t>(i)});
    view.apply(picture(i), random, out + i * 3 * size * size);
  });
  return batch.to(device_);
}

}  // namespace rep
