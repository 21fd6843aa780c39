#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/dataset.h"
#include "data/stream.h"
#include "run/learner.h"
#include "tensor/world.h"

namespace rep {

/// What there is to learn, and in what order: a function of data set, stream and seed, and of the
/// method only where it learns all tasks at once.
struct Scenario {
  std::unique_ptr<Dataset> train, test;  // test: the validation images, where they are tested
  Stream stream;
};
Scenario open_scenario(const Config& config, const torch::Device& device);

/// "test" or, with a share in stream.validation, "validation": the images that accuracies are of.
inline const char* tested_images(const Config& config) {
  return config.stream.validation > 0 ? "validation" : "test";
}

/// How many tests of the any-time accuracy (run/anytime.h) there are up to the end of each task.
std::vector<int64_t> anytime_tests_until(const Stream& stream, int64_t every);

/// And who learns it.
struct Session : Scenario {
  Config config;
  Learner learner;
  std::vector<std::string> notes;  // on the data, worth knowing before training
};

/// Seeds the random numbers, opens data sets and weights and makes the method: what every command
/// does that trains or looks as if it would. `config` has passed read_experiment; `folder`: where a
/// method may leave pictures, "" for nowhere; `world`: the processes that learn together. Throws
/// Error, also for data that would fail later: see check_data, and a task's last batch may have too
/// few images for the backbone to learn from.
Session open_session(const Config& config, const std::string& folder = "",
                     std::shared_ptr<World> world = std::make_shared<World>());

}  // namespace rep
