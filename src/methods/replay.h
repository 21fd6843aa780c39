#pragma once

#include <set>
#include <utility>

#include "methods/head_methods.h"
#include "methods/replay_buffer.h"

namespace rep {

struct ReplayOptions : NetworkOptions, BufferOptions {
  ReplayOptions() { logits = "all"; }
  int64_t replay_batch = 0;
  template <class Visitor>
  void replay_fields(Visitor&& visit) {
    network_fields(visit);
    buffer_fields(visit, {"reservoir", "class_balanced"});
    visit("replay_batch", replay_batch, at_least(0),
          doc("Images of a draw from the buffer; 0: as many as the task's own in the step.",
              "images"));
  }
};

/// What er, der and derpp share: a buffer that every image of the stream is offered once, as it
/// comes by for the first time, and random batches from it, in views of their own.
class ReplayMethod : public HeadMethod {
 public:
  ReplayMethod(const MethodContext& context, const ReplayOptions& options)
      : HeadMethod(context, options),
        images_(context.images),
        buffer_(options, context.seed),
        replay_batch_(options.replay_batch) {}

  void begin_task(const Task& task) override {
    HeadMethod::begin_task(task);
    for (const Sample& sample : task.train) to_come_.insert(sample.index);
  }
  std::vector<TrainedRows> trained_rows() override { return {}; }  // the past trains any of them
  void after_step() override;
  /// Offers what never came by: train.drop_last or a budget kept it out.
  void end_task(const Task& task) override;
  int64_t bytes_until_full(int64_t images) const override {
    return buffer_.bytes_until_full(images);
  }
  bool can_share_batches() const override { return false; }  // the buffer is filled from batches
  void state(State& s) override;

 protected:
  /// A batch from the buffer, and the slots that it came from; empty while the buffer is.
  std::pair<Batch, std::vector<int64_t>> replay(const Batch& current);
  /// What is kept with each of a batch's images, [B, ...]; undefined: nothing.
  virtual torch::Tensor notes_of(const Batch&) { return {}; }
  /// Remembers the batch (and a note a row, [B, ...] or undefined) to be stored after the step. An
  /// image is offered the first time that it comes by, not once an epoch.
  void store(const Batch& current, const torch::Tensor& notes = {});

  const TaskImages& images_;
  ReplayBuffer buffer_;

 private:
  int64_t replay_batch_;
  int64_t draws_ = 0;          // so far, of the whole run: the key of the next
  std::set<int64_t> to_come_;  // images of the task that have not come by
  Batch fresh_;                // to be offered after this step
  torch::Tensor notes_;
};

}  // namespace rep
