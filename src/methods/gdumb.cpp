// GDumb: greedy sampler and dumb learner (Prabhu et al., ECCV 2020).
// The idea in three lines: a buffer is kept balanced over the classes as images come by; whenever
// the model is asked for, it is trained anew, from where it began, on the buffer alone. Nothing is
// ever learned from the stream itself. Differs from Mammoth: the sampler is the paper's greedy
// balancer, not a reservoir, and the model is trained for every row of the accuracy matrix.

#include <algorithm>
#include <cmath>
#include <limits>

#include "methods/head_methods.h"
#include "methods/replay_buffer.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct GdumbOptions : NetworkOptions, BufferOptions {
  double cutmix = 0.5;

  GdumbOptions() { policy = "greedy"; }
  template <class Visitor>
  void fields(Visitor&& visit) {
    network_fields(visit);
    buffer_fields(visit, {"greedy", "reservoir", "class_balanced"});
    visit("cutmix", cutmix, between(0, 1),
          doc("Probability that a batch is mixed by CutMix.", "", "arXiv 1905.04899"));
  }
};

class Gdumb final : public HeadMethod {
 public:
  Gdumb(const MethodContext& context, const GdumbOptions& options)
      : HeadMethod(context, options),
        images_(context.images),
        buffer_(options, context.seed),
        capacity_(options.buffer_size),
        is_bounded_in_bytes_(options.buffer_bytes > 0),
        cutmix_(options.cutmix),
        first_(network_.copy_values()) {}

  void begin_task(const Task& task) override {
    HeadMethod::begin_task(task);
    for (const Sample& sample : task.train) {
      buffer_.offer(sample.label, sample.index, {}, [&] { return images_.image(sample.index); });
    }
    network_.reset(first_);
  }

  TrainingSet training_set(const Dataset&, const Task&) override {
    TrainingSet set{&buffer_, {}};
    for (int64_t slot = 0; slot < buffer_.size(); ++slot) {
      set.samples.push_back({slot, buffer_.item(slot).label});
    }
    return set;
  }

  int64_t training_images(const Stream& stream, const Task& task) const override {
    if (is_bounded_in_bytes_) return -1;
    int64_t offered = 0;
    for (int64_t t = 0; t <= task.index; ++t) {
      offered += static_cast<int64_t>(stream.tasks[static_cast<size_t>(t)].train.size());
    }
    return std::min(capacity_, offered);
  }

  torch::Tensor loss(const Batch& batch) override {
    if (torch::rand({}).item<double>() >= cutmix_) {
      Batch original = batch;  // under the positions that features may be known by
      original.indices = batch.indices.clone();
      auto* indices = original.indices.data_ptr<int64_t>();
      for (int64_t i = 0; i < batch.size(); ++i) indices[i] = buffer_.item(indices[i]).index;
      return HeadMethod::loss(original);
    }
    const torch::Tensor order = torch::randperm(batch.size()).to(batch.labels.device());
    const double share = torch::rand({}).item<double>();
    const int64_t height = batch.images.size(2), width = batch.images.size(3);
    const auto side = [&](int64_t length) {
      const double half = 0.5 * std::sqrt(1 - share) * static_cast<double>(length);
      const double centre = torch::rand({}).item<double>() * static_cast<double>(length);
      const auto first = static_cast<int64_t>(std::max(0.0, centre - half));
      const auto last = std::min(length, static_cast<int64_t>(centre + half));
      return std::pair<int64_t, int64_t>(first, last - first);
    };
    const auto [top, rows] = side(height);
    const auto [left, columns] = side(width);
    Batch mixed = batch;
    mixed.images = batch.images.clone();
    mixed.images.narrow(2, top, rows)
        .narrow(3, left, columns)
        .copy_(batch.images.index_select(0, order).narrow(2, top, rows).narrow(3, left, columns));
    mixed.indices = torch::full_like(batch.indices, std::numeric_limits<int64_t>::max());
    const double other = static_cast<double>(rows * columns) / static_cast<double>(height * width);
    const torch::Tensor logits = network_.logits(network_.train_input(mixed));
    Batch swapped = batch;
    swapped.labels = batch.labels.index_select(0, order);
    return (1 - other) * cross_entropy(logits, batch) + other * cross_entropy(logits, swapped);
  }

  bool predicts_within_task() const override { return false; }  // it learns from the buffer alone
  // CutMix mixes images of the whole batch.
  bool can_share_batches() const override { return cutmix_ == 0; }
  int64_t bytes_until_full(int64_t images) const override {
    return buffer_.bytes_until_full(images);
  }
  void state(State& s) override {
    HeadMethod::state(s);
    s.scope("buffer", [&](State& inner) { buffer_.state(inner); });
  }

 private:
  const TaskImages& images_;
  ReplayBuffer buffer_;
  int64_t capacity_;  // images
  bool is_bounded_in_bytes_;
  double cutmix_;
  std::vector<torch::Tensor> first_;  // the network as it was made
};

const Registered<MethodKind> kGdumb{"gdumb", "Prabhu et al. 2020, GDumb (ECCV)",
                                    method_kind<Gdumb, GdumbOptions>()};

}  // namespace

}  // namespace rep
