#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/json.h"

namespace rep {

/// What a run will take, from a rehearsal of it.
struct Forecast {
  /// The most that CPU tensors hold at once: in a task's steps (its begin included), in what comes
  /// at its end, in a test, while a checkpoint is written.
  struct Peaks {
    int64_t train = 0, task_end = 0, test = 0, checkpoint = 0;
    int64_t highest() const { return std::max({train, task_end, test, checkpoint}); }
  } peak;
  int64_t state_bytes = 0;  // carried on from the last task
  Json parameters;          // {"total", "trainable"} in the last task
  int64_t steps = 0;        // of all tasks
  double step_macs = 0;     // of all steps
  double train_macs = 0;    // with what tasks do at their begin and end
  double test_macs = 0;
  double seconds = 0;              // of the whole run
  std::vector<std::string> notes;  // on the data, and what stood in for what
};

struct RehearsalOptions {
  int64_t steps = 3;        // in a task, of which the first only warms up
  bool few_images = false;  // at once: quicker, and peaks mean nothing
};

/// Goes through the real stream with the real loop, method and images, but takes only a few steps,
/// in the first two tasks and the last, looks at two images a class (one batch in the first task)
/// where a method looks at all of a task's, and tests one batch. From there:
///   steps      those of epochs, batches and budgets, of the method's own training set
///   MACs       a step's, as measured, linear between the tasks that were rehearsed. Where tokens
///              are merged and blocks dropped, the draws of every step of the run are made and the
///              measured MACs follow the arithmetic of the tokens in the blocks that will run
///   memory     as measured, at the step of a rehearsed task that drops the fewest blocks; features
///              and stored images that a method keeps grow to those of all its images
/// Work on features after they are computed counts for the images looked at only. Writes nothing.
/// With `few_images` steps and tests are of an image or two, in the first task and the last, and a
/// batch costs what so many of its images do.
/// `config` has passed read_experiment. Throws Error as a run would.
Forecast rehearse(const Config& config, const RehearsalOptions& options);

}  // namespace rep
