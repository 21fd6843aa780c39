#include "run/session.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "data/completeness.h"
#include "data/device_images.h"
#include "data/loader.h"
#include "methods/method.h"
#include "run/loops.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

namespace {

// Throws Error when a batch that a task comes to, the last of an epoch, has too few images for the
// backbone to learn from.
void refuse_short_batches(const TrainConfig& config, const Stream& stream, const Learner& learner) {
  const int64_t least = learner.backbone->min_training_batch();
  for (const Task& task : stream.tasks) {
    const int64_t images = learner.method->training_images(stream, task);
    const int64_t last = images % config.batch_size;
    const bool dropped = config.drop_last && images >= config.batch_size;
    const int64_t fewest = dropped || last == 0 ? config.batch_size : last;
    if (images <= 0 || fewest >= least) continue;
    const int64_t per_epoch = Loader::batches(images, config.batch_size, config.drop_last);
    if (steps_of_task(config, images) < per_epoch) continue;
    throw Error("train.batch_size: the " + std::to_string(images) + " images of task " +
                std::to_string(task.index + 1) + " leave a batch of " + std::to_string(fewest) +
                " image, of which batch norm cannot learn; take another size, or train.drop_last: "
                "true");
  }
}

// The loss, a cross-entropy among a task's own classes, is constant for one.
void add_single_class_note(const Stream& stream, const std::string& name, const Method& method,
                           std::vector<std::string>& notes) {
  std::string alone;
  for (const Task& task : stream.tasks) {
    if (task.classes.size() != 1) continue;
    alone += (alone.empty() ? "" : ", ") + std::to_string(task.index + 1);
  }
  if (alone.empty() || !method.loss_is_within_task()) return;
  notes.push_back("tasks of one class (" + alone + "): the loss of " + name +
                  " is among a task's own classes, constant for one, and teaches nothing there");
}

// Leaves only the tasks that stream.stop_after lets the run learn. The method was made for all of
// them.
void stop_early(const StreamConfig& config, Stream& stream) {
  if (config.stop_after == 0) return;
  const auto all = static_cast<int64_t>(stream.tasks.size());
  if (config.stop_after > all) {
    throw Error("stream.stop_after: " + std::to_string(config.stop_after) + " of " +
                std::to_string(all) + " tasks; take at most as many as there are, or 0 for all");
  }
  stream.tasks.resize(static_cast<size_t>(config.stop_after));
  const bool learns = std::any_of(stream.tasks.begin(), stream.tasks.end(),
                                  [](const Task& task) { return !task.train.empty(); });
  if (!learns) {
    throw Error("stream.stop_after: the first " + std::to_string(config.stop_after) +
                " tasks have no training images, and the run would learn nothing; leave it out");
  }
  stream.tasks.back().is_tested = true;  // whatever eval.every_tasks says
}

// Throws Error where the method cannot learn such a stream, or answer in its middle.
void refuse_stream(const Config& config, const Stream& stream, const Method& method) {
  const std::string& name = config.method.name;
  if (!stream.disjoint && !method.learns_repeated_classes()) {
    throw Error("stream.kind: " + config.stream.kind +
                " brings classes of earlier tasks again, which " + name +
                " does not learn; take another method (docs/streams.md has a list), or disjoint "
                "tasks");
  }
  if (config.eval.every == 0) return;
  if (!method.predicts_within_task()) {
    throw Error("eval.every: " + name +
                ", with these options, answers for a task only when it has ended; take another "
                "method, or set eval.every to 0");
  }
  if (anytime_tests_until(stream, config.eval.every).back() == 0) {
    throw Error("eval.every: " + std::to_string(config.eval.every) +
                " is more than the stream's training images; take less");
  }
}

}  // namespace

Scenario open_scenario(const Config& config, const torch::Device& device) {
  Scenario scenario;
  Splits splits = open_splits(config);
  scenario.train = on_device(std::move(splits.train), device);
  scenario.test = on_device(std::move(splits.test), device);
  scenario.stream = cut_into_tasks(*scenario.train, *scenario.test, config.stream, config.seed);
  const MethodKind& method = Registry<MethodKind>::get().at(config.method.name).value;
  if (config.eval.every_tasks > 1) test_every(config.eval.every_tasks, scenario.stream);
  if (method.rearrange) method.rearrange(scenario.stream);
  return scenario;
}

std::vector<int64_t> anytime_tests_until(const Stream& stream, int64_t every) {
  std::vector<int64_t> tests;
  int64_t images = 0;
  for (const Task& task : stream.tasks) {
    images += static_cast<int64_t>(task.train.size());
    tests.push_back(every > 0 ? images / every : 0);
  }
  return tests;
}

Session open_session(const Config& config, const std::string& folder,
                     std::shared_ptr<World> world) {
  const torch::Device device = choose_device(config.device);
  if (device.is_cuda()) meter_cuda_device(device.index());
  seed_everything(config.seed);
  Scenario scenario = open_scenario(config, device);
  std::vector<std::string> notes =
      check_data(*scenario.train, *scenario.test, tested_images(config));
  Learner learner(config, scenario.stream, *scenario.train, device, folder);
  learner.join(std::move(world), config);
  stop_early(config.stream, scenario.stream);
  refuse_stream(config, scenario.stream, *learner.method);
  refuse_short_batches(config.train, scenario.stream, learner);
  add_single_class_note(scenario.stream, config.method.name, *learner.method, notes);
  learner.efficiency->queries.cache_test(scenario.test->size());
  return {std::move(scenario), config, std::move(learner), std::move(notes)};
}

}  // namespace rep
