#include "methods/replay.h"

#include "tensor/torch.h"

namespace rep {

std::pair<Batch, std::vector<int64_t>> ReplayMethod::replay(const Batch& current) {
  const auto key = static_cast<uint64_t>(draws_++);
  const std::vector<int64_t> slots =
      buffer_.draw(replay_batch_ > 0 ? replay_batch_ : current.size(), key);
  if (slots.empty()) return {};
  std::vector<int64_t> labels, indices;
  for (const int64_t slot : slots) {
    labels.push_back(buffer_.item(slot).label);
    indices.push_back(buffer_.item(slot).index);
  }
  Batch batch;
  batch.images = images_.augment(
      static_cast<int64_t>(slots.size()),
      [&](int64_t i) { return buffer_.image(slots[static_cast<size_t>(i)]); }, key);
  batch.labels = torch::tensor(labels, torch::kLong).to(current.labels.device());
  batch.indices = torch::tensor(indices, torch::kLong);
  return {batch, slots};
}

void ReplayMethod::store(const Batch& current, const torch::Tensor& notes) {
  fresh_ = current;
  notes_ = notes;
}

void ReplayMethod::after_step() {
  // The batch's own labels lie on the device, which would have to be waited for.
  for (int64_t i = 0; i < fresh_.size() && !to_come_.empty(); ++i) {
    const int64_t index = fresh_.indices[i].item<int64_t>();
    if (to_come_.erase(index) == 0) continue;
    buffer_.offer(images_.label(index), index, notes_.defined() ? notes_[i] : torch::Tensor(),
                  [&] { return images_.image(index); });
  }
  fresh_ = {};
  notes_.reset();
}

void ReplayMethod::end_task(const Task& task) {
  torch::NoGradGuard no_grad;
  std::vector<Sample> left;
  for (const Sample& sample : task.train) {
    if (!images_.is_rehearsal() && to_come_.count(sample.index) > 0) left.push_back(sample);
  }
  images_.each_batch(left, [&](const Batch& batch) {
    store(batch, notes_of(batch));
    after_step();
  });
  to_come_.clear();
}

void ReplayMethod::state(State& s) {
  HeadMethod::state(s);
  s.scope("buffer", [&](State& inner) { buffer_.state(inner); });
  s("draws", draws_);
  torch::Tensor left = torch::tensor(std::vector<int64_t>(to_come_.begin(), to_come_.end()));
  s.on_cpu("to_come", left);
  const int64_t* index = left.data_ptr<int64_t>();
  to_come_ = {index, index + left.numel()};
}

}  // namespace rep
