#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/dataset.h"
#include "data/stream.h"
#include "run/observer.h"
#include "tensor/world.h"

namespace rep {

/// Keeps what a run said of its test images (eval.predictions), in FOLDER/task-TT.csv or
/// task-TT.safetensors with TT the index of the task learnt last: docs/results.md has the format.
/// Collects nothing for `none`. Of several processes one writes, the images of all.
class Predictions final : public Observer {
 public:
  /// `test` and `stream` outlive it.
  Predictions(std::string folder, std::string kind, const Dataset& test, const Stream& stream,
              const World& world);
  void after_test_batch(const TestedBatch& batch) override;
  void end_test(const Task& task) override;
  /// Writes what was collected since the last call, atomically: the test after `learnt`.
  void write(const Task& learnt);

 private:
  /// Rows of an image each, `width` entries a row.
  struct Rows {
    std::vector<int64_t> labels;  // top5: the likeliest first, -1 where there are fewer; else none
    std::vector<float> scores;
  };
  struct Image {
    int64_t task, index, label;
  };
  std::string csv() const;
  void write_logits(const std::string& path) const;
  std::string class_name(int64_t label) const;

  std::string folder_, kind_;
  const Dataset& test_;
  const Stream& stream_;
  const World& world_;
  int64_t width_ = 0, candidates_ = 0;
  Rows part_;  // of the task in hand, this process's
  Rows all_;
  std::vector<Image> images_;
};

}  // namespace rep
