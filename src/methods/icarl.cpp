// iCaRL: incremental classifier and representation learning (Rebuffi et al., arXiv 1611.07725).
// The idea in three lines: herding keeps, for every class, the exemplars whose mean feature is
// nearest to the class's; a new task trains on its own images and all exemplars, where the outputs
// of old classes are distilled from the network before; the class whose exemplars' mean feature is
// nearest is the answer. Differs from Mammoth: class means come from the exemplars alone (its
// preset's come from an unlimited second buffer), and weight decay is the optimiser's.

#include <limits>

#include "methods/cosine_head.h"
#include "methods/head_methods.h"
#include "methods/replay_buffer.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct IcarlOptions : NetworkOptions, BufferOptions {
  IcarlOptions() {
    logits = "all";
    buffer_size = 2000;
    policy = "herding";
  }
  template <class Visitor>
  void fields(Visitor&& visit) {
    network_fields(visit);
    buffer_fields(visit, {"herding"});
  }
};

class Icarl final : public HeadMethod {
 public:
  Icarl(const MethodContext& context, const IcarlOptions& options)
      : HeadMethod(context, options),
        images_(context.images),
        buffer_(options, context.seed),
        capacity_(options.buffer_size) {
    if (options.buffer_bytes > 0) {
      throw Error(
          "method.buffer_bytes: icarl shares its buffer out in images a class; set "
          "buffer_size instead");
    }
    means_ = torch::zeros({num_classes_, network_.feature_dim()}, context.device);
  }

  TrainingSet training_set(const Dataset& train, const Task& task) override {
    with_buffer_ = std::make_unique<WithBuffer>(train, buffer_);
    TrainingSet set{with_buffer_.get(), task.train};
    for (int64_t slot = 0; slot < buffer_.size(); ++slot) {
      set.samples.push_back({train.size() + slot, buffer_.item(slot).label});
    }
    return set;
  }

  std::vector<TrainedRows> trained_rows() override { return rows_of_seen(); }

  torch::Tensor loss(const Batch& batch) override {
    const Network::Input input = network_.train_input(original(batch));
    torch::Tensor target = torch::one_hot(batch.labels, num_classes_).to(torch::kFloat);
    if (!previous_.empty()) {
      Network::Input fixed = input;
      fixed.training = false;
      const torch::Tensor old =
          network_.as(previous_, [&] { return network_.logits(fixed).sigmoid(); });
      target.narrow(1, 0, old_classes_).copy_(old.narrow(1, 0, old_classes_));
    }
    const torch::Tensor logits = network_.logits(input);
    return torch::binary_cross_entropy_with_logits(logits.narrow(1, 0, trained_.last),
                                                   target.narrow(1, 0, trained_.last));
  }

  torch::Tensor predict(const Batch& batch) override {
    const torch::Tensor f = unit_length(network_.features(network_.test_input(batch)));
    const torch::Tensor distance =
        f.square().sum(1, true) + means_.square().sum(1) - 2 * torch::mm(f, means_.t());
    // A class without images has no mean, seen or not.
    return (-distance).masked_fill(means_.eq(0).all(1), -std::numeric_limits<float>::infinity());
  }

  bool has_unseen_logits() const override { return false; }        // no exemplars, no mean
  bool learns_repeated_classes() const override { return false; }  // a class is herded once
  bool predicts_within_task() const override { return false; }
  bool loss_is_within_task() const override { return false; }  // a sigmoid a class

  void end_task(const Task& task) override {
    torch::NoGradGuard no_grad;
    const int64_t seen = task.last_label();
    const int64_t quota = exemplars_of_each(seen);
    buffer_.keep_first(quota);
    for (int64_t label = task.first_label; label < seen; ++label) herd(task, label, quota);
    find_means(seen);
    previous_ = network_.copy_values();
    old_classes_ = seen;
  }

  int64_t training_images(const Stream& stream, const Task& task) const override {
    std::vector<int64_t> earlier(static_cast<size_t>(task.first_label));  // images of each class
    for (int64_t t = 0; t < task.index; ++t) {
      for (const Sample& sample : stream.tasks[static_cast<size_t>(t)].train) {
        ++earlier[static_cast<size_t>(sample.label)];
      }
    }
    auto images = static_cast<int64_t>(task.train.size());
    for (const int64_t n : earlier) images += std::min(n, exemplars_of_each(task.first_label));
    return images;
  }
  int64_t bytes_until_full(int64_t images) const override {
    return buffer_.bytes_until_full(images);
  }
  void state(State& s) override {
    HeadMethod::state(s);
    s.scope("buffer", [&](State& inner) { buffer_.state(inner); });
    s("means", means_);
    s("previous", previous_);
    s("old_classes", old_classes_);
  }

 private:
  // Exemplars of each of so many classes.
  int64_t exemplars_of_each(int64_t seen) const { return std::max<int64_t>(1, capacity_ / seen); }

  // Exemplars under the positions that they have in the training set, where their features may be
  // known.
  Batch original(const Batch& batch) const {
    Batch same = batch;
    same.indices = batch.indices.clone();
    auto* indices = same.indices.data_ptr<int64_t>();
    for (int64_t i = 0; i < batch.size(); ++i) {
      const int64_t slot = indices[i] - images_.size();
      if (slot >= 0) indices[i] = buffer_.item(slot).index;
    }
    return same;
  }

  void herd(const Task& task, int64_t label, int64_t quota) {
    std::vector<Sample> own;
    for (const Sample& sample : task.train) {
      if (sample.label == label) own.push_back(sample);
    }
    std::vector<torch::Tensor> rows;
    images_.each_batch(own, [&](const Batch& batch) {
      rows.push_back(unit_length(network_.features(network_.fixed_input(batch))).cpu());
    });
    if (rows.empty()) return;
    for (const int64_t i : herding_order(torch::cat(rows), quota)) {
      const int64_t index = own[static_cast<size_t>(i)].index;
      buffer_.append(label, index, images_.image(index));
    }
  }

  // Of the exemplars as they are and mirrored, after every task anew: the features have moved.
  void find_means(int64_t seen) {
    means_.zero_();
    std::vector<std::vector<int64_t>> slots(static_cast<size_t>(seen));
    for (int64_t i = 0; i < buffer_.size(); ++i) {
      slots[static_cast<size_t>(buffer_.item(i).label)].push_back(i);
    }
    for (int64_t label = 0; label < seen; ++label) {
      const auto& own = slots[static_cast<size_t>(label)];
      if (own.empty()) continue;
      torch::Tensor sum = torch::zeros_like(means_[label]);
      constexpr size_t kAtOnce = 64;
      for (size_t first = 0; first < own.size(); first += kAtOnce) {
        const size_t last = std::min(own.size(), first + kAtOnce);
        std::vector<int64_t> indices;
        for (size_t i = first; i < last; ++i) indices.push_back(buffer_.item(own[i]).index);
        Batch batch;
        batch.images = images_.prepare(static_cast<int64_t>(last - first), [&](int64_t i) {
          return buffer_.image(own[first + static_cast<size_t>(i)]);
        });
        batch.indices = torch::tensor(indices, torch::kLong);
        sum += unit_length(network_.features(network_.fixed_input(batch))).sum(0);
        batch.images = batch.images.flip(3);
        batch.indices = torch::full_like(batch.indices, std::numeric_limits<int64_t>::max());
        sum += unit_length(network_.features(network_.fixed_input(batch))).sum(0);
      }
      means_[label].copy_(sum / sum.norm().clamp_min(1e-12));
    }
  }

  const TaskImages& images_;
  ReplayBuffer buffer_;
  int64_t capacity_;
  std::unique_ptr<WithBuffer> with_buffer_;
  std::vector<torch::Tensor> previous_;  // the network after the task before
  torch::Tensor means_;                  // [C, D], unit length; 0 of classes without exemplars
  int64_t old_classes_ = 0;              // whose outputs are distilled
};

const Registered<MethodKind> kIcarl{"icarl", "Rebuffi et al. 2017, iCaRL (arXiv 1611.07725)",
                                    method_kind<Icarl, IcarlOptions>()};

}  // namespace

}  // namespace rep
