#include "run/experiment.h"

#include <torch/version.h>

#include <cmath>
#include <ctime>

#include "core/error.h"
#include "data/dataset.h"
#include "data/device_images.h"
#include "data/stream.h"
#include "revision.h"
#include "run/learner.h"
#include "run/loops.h"
#include "run/offline_result.h"
#include "run/run_folder.h"
#include "tensor/device.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

namespace {

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

// What to know before this result is compared with another.
Json notes_on(const Config& config, const Learner& learner, const Stream& stream) {
  Json notes = Json::array();
  if (learner.world->size() > 1) notes.push_back("costs are those of the first process");
  if (!learner.device.is_cpu()) {
    notes.push_back(
        "a GPU adds floats up in no fixed order (atomics): another run may differ by rounding, and "
        "by what that sways");
  }
  if (config.eval.classes == "all") {
    notes.push_back(
        "eval.classes all: class-incremental accuracies, and what is made of them, are among all "
        "classes of the stream, also those that no task had shown");
  }
  if (config.train.seconds > 0) {
    notes.push_back(
        "train.seconds ends a task by the clock: another run takes another number of steps");
  }
  std::string alone;
  for (const Task& task : stream.tasks) {
    if (task.classes.size() == 1) alone += (alone.empty() ? "" : ", ") + std::to_string(task.index);
  }
  if (!alone.empty() && learner.method->loss_is_within_task()) {
    notes.push_back("tasks of one class (" + alone + "): the loss of " + config.method.name +
                    " is among a task's own classes, constant for one, and teaches nothing there");
  }
  return notes;
}

// What a result says of itself before the first task.
Json make_head(const Config& config, const Learner& learner, const Stream& stream,
               const Dataset& train, const Dataset& test) {
  Json inputs = learner.inputs;
  if (config.dataset.name == "imagenet_subset" &&
      config.backbone.weights.find("in1k") != std::string::npos) {
    inputs["weights"]["note"] =
        "the weights saw ImageNet-1k's labels: accuracies on this data set are contaminated";
  }
  inputs["queries_computed_once"] =
      learner.efficiency->remembers_train_queries() ? Json{"train", "test"} : Json{"test"};
  inputs["dataset"] = {{"name", config.dataset.name},
                       {"train_images", train.size()},
                       {"test_images", test.size()},
                       {"fingerprint", train.fingerprint() + "-" + test.fingerprint()}};
  Json head{
      {"name", config.name},        {"rep", {{"version", REP_VERSION}, {"revision", REP_REVISION}}},
      {"libtorch", TORCH_VERSION},  {"device", describe_device(learner.device)},
      {"started", now_utc()},       {"config", to_json(config)},
      {"inputs", std::move(inputs)}};
  if (learner.world->size() > 1) head["device"]["processes"] = learner.world->size();
  if (Json notes = notes_on(config, learner, stream); !notes.empty()) {
    head["notes"] = std::move(notes);
  }
  return head;
}

std::string resume_line(bool found, const Result& result, const Position& position,
                        const std::string& output) {
  if (!found) return "nothing to resume in " + output + ": starting from the beginning";
  if (result.is_complete()) return "the run in " + output + " is complete";
  return "going on with task " + std::to_string(position.task + 1) + " after step " +
         std::to_string(position.iteration);
}

double percent(int64_t correct, int64_t images) {
  return images == 0 ? 0.0 : 100.0 * static_cast<double>(correct) / static_cast<double>(images);
}

}  // namespace

Result run_experiment(const Config& config, const RunOptions& options, Progress& progress) {
  const torch::Device device = choose_device(config.device);
  if (!device.is_cpu() && !config.memory_limit.empty()) {
    throw Error("memory_limit: only the CPU's tensors are counted, and this run computes on " +
                device.str() + "; leave it out, or set device: cpu");
  }
  if (device.is_cuda()) meter_cuda_device(device.index());
  seed_everything(config.seed);

  // What there is to learn, and in what order: a function of data set and seed, never of the
  // method.
  const auto train = open_dataset(config.dataset, Split::kTrain, config.seed, device);
  const auto test = open_dataset(config.dataset, Split::kTest, config.seed, device);
  Stream stream = cut_into_tasks(*train, *test, config.stream, config.seed);
  const bool joint = Registry<MethodKind>::get().at(config.method.name).value.joint;
  if (joint) give_all_training_to_the_last_task(stream);

  // Who learns it, and where it is kept. From here on a kill loses nothing that was saved.
  Learner learner(config, stream, *train, device, options.world->writes() ? options.output : "");
  learner.join(options.world, config);
  learner.efficiency->remember_test_queries(test->size());
  for (const auto& [name, input] : learner.inputs.items()) {
    if (input.contains("warning")) progress.warn(name + ": " + input["warning"].get<std::string>());
  }
  Result result(make_head(config, learner, stream, *train, *test));
  if (!config.eval.offline_result.empty()) {
    result.set_offline(read_offline_result(config.eval.offline_result, stream));
  }
  RunFolder folder(options.output, options.resume, config, options.world->writes());
  Position position;
  if (options.resume) {
    const bool found = folder.restore(learner, position, result);
    progress.info(resume_line(found, result, position, options.output));
  }
  options.world->expect_equal({torch::tensor({position.task, position.iteration})},
                              "the positions to go on from");

  const auto last_task = static_cast<int64_t>(stream.tasks.size()) - 1;
  while (position.task <= last_task) {
    const Task& task = stream.tasks[static_cast<size_t>(position.task)];
    reset_peak_tensor_bytes();
    learner.images->set_task(task);
    if (!position.trained) {
      if (position.iteration == 0) {
        result.begin_task(task, train->class_names());
        learner.efficiency->clear_log();
        learner.method->begin_task(task);
        result.set_parameters(learner.parameters());
      }
      train_task(
          learner, *train, task, last_task + 1, config, position, folder.take_optimizer_restorer(),
          [&](Optimizer& optimizer, const StepReport* report) {
            if (report) folder.log_step(*report);
            folder.save_if_due(learner, position, result, optimizer);
            if (!is_over_memory_limit(config)) return;
            folder.save(learner, position, result, &optimizer);
            enforce_memory_limit(config, Phase::kStep);
          },
          result, progress);
      learner.method->end_task(task);
      options.world->expect_equal(learner.method->parameters(), "the parameters after a task");
      // The task's images are never seen again by the learner past this line: only what the method
      // itself stored.
      result.finish_training(position.iteration, learner.efficiency->log(), learner.state_bytes());
      position.trained = true;
      folder.save(learner, position, result, nullptr);
      enforce_memory_limit(config, Phase::kStep);
    }

    // One pass over every task seen so far gives both matrices' next row. Joint learning has only
    // the last; before it nothing was learned, and JSON says null.
    std::vector<double> class_incremental, task_incremental;
    for (int64_t seen = 0; seen <= position.task; ++seen) {
      if (joint && position.task < last_task) {
        class_incremental.push_back(std::nan(""));
        task_incremental.push_back(std::nan(""));
        continue;
      }
      const Correct correct = evaluate(learner, *test, stream.tasks[static_cast<size_t>(seen)],
                                       task.last_label(), config);
      class_incremental.push_back(percent(correct.class_incremental, correct.images));
      task_incremental.push_back(percent(correct.task_incremental, correct.images));
    }
    result.add_row(class_incremental, task_incremental);
    if (!joint || position.task == last_task) {
      progress.accuracy_row(position.task, class_incremental);
    }
    folder.book(result);

    position = {position.task + 1, 0, position.total_iterations, false};
    if (position.task > last_task) result.complete();
    folder.write_result(result);
    folder.save(learner, position, result, nullptr);
  }
  return result;
}

}  // namespace rep
