#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "nn/backbone.h"
#include "tensor/recorder.h"

namespace rep {

/// Passes of a frozen backbone, forward and backward, of which those whose shapes repeat are
/// recorded (tensor/recorder.h) and started as a whole: on a GPU the hundreds of launches of a pass
/// take longer than its arithmetic at small batches. A recording keeps the memory of its pass.
///
/// Recorded is a pass of shapes and a plan met for the third time, eight of them at most; op by op
/// go the others, plans that drop or scale blocks (others at each step) or hold what a recording
/// cannot (prefixes made on the way, adapters, LoRA's branches, an observer, part of the patches),
/// and a pass whose recording still waits for its backward. A recording that does not give what the
/// pass itself gives, or fails, is reported once, and none is made from then on.
class RecordedPasses {
 public:
  /// images [B, 3, S, S], plan -> tokens, without effects but those on the result.
  using Pass = std::function<torch::Tensor(const torch::Tensor& images, const ForwardPlan& plan)>;
  RecordedPasses(Pass pass, Recorder recorder);
  ~RecordedPasses();
  RecordedPasses(const RecordedPasses&) = delete;
  RecordedPasses& operator=(const RecordedPasses&) = delete;

  /// What pass(images, plan) gives, with its gradients of plan.prompts, prefixes and class_offsets.
  torch::Tensor operator()(const torch::Tensor& images, const ForwardPlan& plan);
  /// Passes that were started from a recording.
  int64_t started() const { return started_; }

 private:
  struct Recording;
  std::shared_ptr<Recording> record(const torch::Tensor& images, const torch::Tensor& learned,
                                    const ForwardPlan& plan) const;

  Pass pass_;
  Recorder recorder_;  // empty: no more
  struct Seen {
    int64_t times = 0;
    std::shared_ptr<Recording> recording;
  };
  std::map<std::vector<int64_t>, Seen> seen_;
  int64_t recordings_ = 0, started_ = 0;
};

}  // namespace rep
