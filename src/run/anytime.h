#pragma once

#include <cstdint>
#include <vector>

#include "data/stream.h"
#include "run/observer.h"
#include "run/result.h"
#include "run/session.h"

namespace rep {

/// The any-time accuracy of one pass over a stream (i-Blurry: Koh et al., arXiv 2110.10031): each
/// time that eval.every more images were learned (at the first step at which they were), all test
/// images of the classes shown so far are classified among those classes. A function of the
/// position in the stream alone, so that a resume needs nothing but the result.
class AnytimeTests final : public Observer {
 public:
  AnytimeTests(Session& session, Result& result) : session_(session), result_(result) {}
  void begin_training(const Task& task, int64_t steps, int64_t done, Optimizer&) override;
  void after_step(const Step& step, Optimizer&) override;

 private:
  void show(int64_t count);

  Session& session_;
  Result& result_;
  std::vector<Sample> order_;  // of the task in training
  int64_t place_ = 0;          // images of it that were learned
  int64_t images_ = 0;         // and of the whole stream
  std::vector<bool> shown_;    // by label
};

}  // namespace rep
