#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/image.h"
#include "data/no_images.h"
#include "run/finished_run.h"
#include "run/learner.h"

namespace rep {

/// What a model makes of one image file.
struct Prediction {
  std::string path;
  std::vector<double> probabilities;  // of the seen classes, in the order of the stream; they sum
                                      // to 1
  std::string fault;                  // why there are none: a sentence

  /// The `count` most probable labels, the first of them as a run's test has it.
  std::vector<int64_t> top(int64_t count) const;
};

/// A finished run's model. An image goes through the pipeline of the run's own test.
class Predictor {
 public:
  /// Opens weights and checkpoint. Throws Error.
  explicit Predictor(FinishedRun run);
  Predictor(const Predictor&) = delete;  // the learner refers to data_
  Predictor& operator=(const Predictor&) = delete;

  /// Of one batch of files, in their order; one that cannot be decoded does not stop the others.
  std::vector<Prediction> predict(const std::vector<std::string>& paths);
  /// By label of the stream.
  const std::string& class_name(int64_t label) const;
  const FinishedRun& run() const { return run_; }
  /// Whether an image's prediction depends on the images beside it in its batch.
  bool predicts_by_batch() const { return learner_->method->predicts_by_batch(); }

 private:
  FinishedRun run_;
  NoImages data_;
  std::unique_ptr<Learner> learner_;
  ExifOrientation exif_ = ExifOrientation::kApply;
};

}  // namespace rep
