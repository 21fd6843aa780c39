#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "methods/network.h"
#include "methods/vae.h"

namespace rep {

struct GenerativeReplayOptions {
  std::string level = "feature";
  std::string logits = "seen";
  int64_t hidden = 2000;
  int64_t latent = 100;
  int64_t replay_batch = 0;
  double gate = 0.7;
  double temperature = 2;
  int64_t pixel_size = 32;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("level", level, one_of({"feature", "pixel"}),
          doc("What is generated. feature: features of a frozen backbone; pixel: images, for any "
              "backbone, far weaker on natural scenes."));
    visit("logits", logits, one_of({"seen", "all"}),
          doc("Classes that the training losses see: those so far, or all of the stream."));
    visit("hidden", hidden, at_least(1), doc("Width of the VAE's dense layers.", "units"));
    visit("latent", latent, at_least(1), doc("Latent dimensions of the VAE.", "dimensions"));
    visit("replay_batch", replay_batch, at_least(0),
          doc("Generated samples of a step; 0: as many as the task's own.", "images"));
    visit("gate", gate, between(0, 1),
          doc("feature: fraction of the decoder's units that a class shuts.", "",
              "doi 10.1038/s41467-020-17866-2"));
    visit("temperature", temperature, above(0),
          doc("feature: temperature of the previous solver's targets."));
    visit("pixel_size", pixel_size, between(16, 64),
          doc("pixel: side of the generated images, a multiple of 16.", "pixels"));
  }
};

/// What both levels share: how much the past counts.
class GenerativeReplay : public Method {
 public:
  GenerativeReplay(const MethodContext& context, const GenerativeReplayOptions& options);
  void begin_task(const Task& task) override;
  bool has_unseen_logits() const override { return true; }
  void state(State& s) override;

 protected:
  bool has_past() const { return past_ > 0; }
  int64_t replays(const Batch& batch) const {
    return options_.replay_batch > 0 ? options_.replay_batch : batch.size();
  }
  /// 1/t of the task's own loss and the rest of the replayed one's, in the t-th task.
  torch::Tensor weighted(const torch::Tensor& own, const torch::Tensor& replayed) const {
    const double r = 1 / static_cast<double>(tasks_);
    return r * own + (1 - r) * replayed;
  }
  /// The training losses see the classes [0, last_class()).
  int64_t last_class() const { return options_.logits == "all" ? num_classes_ : seen_; }

  GenerativeReplayOptions options_;
  int64_t num_classes_;
  torch::Device device_;
  Network network_;
  int64_t past_ = 0, seen_ = 0, tasks_ = 0;  // classes before this task and with it; tasks with it
};

/// One network that classifies features and generates them (level: feature).
class FeatureReplay final : public GenerativeReplay {
 public:
  FeatureReplay(const MethodContext& context, const GenerativeReplayOptions& options);
  void begin_task(const Task& task) override;
  std::vector<torch::Tensor> parameters() override { return parameters_of(vae_); }
  std::vector<TrainedRows> trained_rows() override;
  torch::Tensor loss(const Batch& batch) override;
  torch::Tensor predict(const Batch& batch) override;
  void end_task(const Task&) override { previous_ = without_values(vae_); }
  void state(State& s) override;

  /// Standardised features [B, D] of past classes, from the model as the task found it, and its
  /// soft targets for them [B, past].
  std::pair<torch::Tensor, torch::Tensor> replay(int64_t count) const;

 private:
  void standardise_by(const Task& task);
  torch::Tensor standardised(const torch::Tensor& features) const {
    return (features - feature_mean_) / feature_std_;
  }

  const TaskImages& images_;
  GatedVae vae_, previous_;                   // previous_: while a later task is trained
  torch::Tensor feature_mean_, feature_std_;  // [D], of the first task
};

/// A solver and a generator of pictures beside it (level: pixel).
class PixelReplay final : public GenerativeReplay {
 public:
  PixelReplay(const MethodContext& context, const GenerativeReplayOptions& options);
  void begin_task(const Task& task) override;
  std::vector<torch::Tensor> parameters() override;
  std::vector<TrainedRows> trained_rows() override;
  torch::Tensor loss(const Batch& batch) override;
  torch::Tensor predict(const Batch& batch) override {
    return network_.logits(network_.test_input(batch));
  }
  void end_task(const Task& task) override;
  void state(State& s) override;

  /// Pictures [B, 3, pixel_size, pixel_size] from the generator as the task found it, and the same
  /// in the network's size, labelled by the solver as the task found it. Before the batch's own
  /// forward.
  std::pair<torch::Tensor, Batch> replay(int64_t count);

 private:
  int64_t image_size_, generated_index_;
  int64_t picture_seed_;
  std::string folder_;
  ConvVae vae_, previous_;  // previous_, previous_solver_: while a later task is trained
  std::vector<torch::Tensor> previous_solver_;
};

}  // namespace rep
