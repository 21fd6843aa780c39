#pragma once

#include <cstdint>
#include <vector>

#include "data/stream.h"
#include "run/observer.h"
#include "run/session.h"

namespace rep {

/// Correct answers among `task`'s test images: against the classes [0, seen), or all of the stream
/// (eval.classes: all), and against the task's own.
struct Correct {
  int64_t class_incremental = 0, task_incremental = 0, images = 0;
  std::vector<int64_t> predicted;  // the label that each of task.test was taken for, by the first
};
Correct evaluate(Session& session, const Task& task, int64_t seen, const Observers& observers = {});
/// class_incremental among the test images of the classes that are `shown` (by label), against
/// these classes.
Correct evaluate_shown(Session& session, const std::vector<bool>& shown);

}  // namespace rep
