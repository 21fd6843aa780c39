#include "run/experiment.h"

#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "core/error.h"
#include "core/identity.h"
#include "core/offline_result.h"
#include "data/dataset.h"
#include "revision.h"
#include "run/anytime.h"
#include "run/confusion.h"
#include "run/evaluation.h"
#include "run/inputs.h"
#include "run/learn.h"
#include "run/loops.h"
#include "run/memory_limit.h"
#include "run/predictions.h"
#include "run/run_folder.h"
#include "run/session.h"
#include "run/shared_queries.h"
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
Json notes_on(const Session& session) {
  const Config& config = session.config;
  const Learner& learner = session.learner;
  Json notes = session.notes;
  if (learner.world->size() > 1) notes.push_back("costs are those of the first process");
  if (config.stream.validation > 0) {
    notes.push_back("stream.validation " + Json(config.stream.validation).dump() +
                    ": accuracies are of training images that were kept out of training, a choice "
                    "and not a result; no test image was opened");
  }
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
  return notes;
}

// What a result says of itself before the first task.
// `config`: as asked for; what memory_limit made of it stands under "memory".
Json make_head(const Session& session, const Config& config, const Json& run_identity) {
  const Learner& learner = session.learner;
  Json inputs = learner.inputs;
  if (const auto note = Registry<DatasetKind>::get().at(config.dataset.name).value.weights_note) {
    const std::string text = note(config.backbone.weights);
    if (!text.empty()) inputs["weights"]["note"] = text;
  }
  inputs["dataset"] = {{"name", config.dataset.name},
                       {"train_images", session.train->size()},
                       {"test_images", session.test->size()},
                       {"fingerprint", run_identity.at("inputs").at("dataset")}};
  Json head{{"name", config.name},
            {"rep", {{"version", REP_VERSION}, {"revision", REP_REVISION}}},
            {"libtorch", TORCH_VERSION},
            {"device", describe_device(learner.device)},
            {"started", now_utc()},
            {"config", to_json(config)},
            {"identity", run_identity},
            {"inputs", std::move(inputs)},
            {"evaluated_on", tested_images(config)}};
  head["made_for"] = {{"classes", learner.made_for.classes}, {"tasks", learner.made_for.tasks}};
  if (learner.world->size() > 1) head["device"]["processes"] = learner.world->size();
  if (Json notes = notes_on(session); !notes.empty()) head["notes"] = std::move(notes);
  return head;
}

// The same of a run that goes on: what was noted of its first tasks still holds.
Json continued_head(Json head, const FinishedRun& run) {
  head["continues"] = {{"run", run.path}, {"tasks", run.stream.tasks.size()}};
  Json notes = run.result.value("notes", Json::array());
  for (const Json& note : head.value("notes", Json::array())) {
    if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(note);
  }
  if (!notes.empty()) head["notes"] = std::move(notes);
  return head;
}

// Puts the learner and the result where `run` left them. Throws Error where the method cannot.
void go_on_from(const FinishedRun& run, Session& session, RunFolder& folder, Position& position,
                Result& result) {
  Learner& learner = session.learner;
  State state = open_checkpoint(run, learner.inputs, learner.device);
  if (!has_room(run, session.config, *learner.method)) state.let_grow();
  Json head = result.head();
  folder.go_on_from(state, run.path + "/metrics.jsonl", learner, position, result);
  // Queries of another view of the old images.
  const Json was = identity(run.config).at("dataset");
  const Json is = identity(session.config).at("dataset").at("before");
  if (was != is || run.config.train.augment != session.config.train.augment) {
    learner.efficiency->queries.forget();
  }
  result.go_on(continued_head(std::move(head), run));
}

std::string resume_line(bool found, const Result& result, const Position& position,
                        const std::string& output) {
  if (!found) return "nothing to resume in " + output + ": starting from the beginning";
  if (result.is_complete()) return "the run in " + output + " is complete";
  return "going on with task " + std::to_string(position.task + 1) + " after step " +
         std::to_string(position.iteration);
}

// Processes that train together average gradients, and so take the same steps: what trains stays
// the same, bit for bit. What a method computes from the task's images each process computes for
// itself, in batches of its own where features are cached, and the same to rounding.
void expect_carried_alike(Learner& learner, const std::string& what) {
  if (learner.world->size() == 1) return;
  State state;
  learner.method->state(state);
  std::vector<torch::Tensor> values;
  for (const auto& [name, tensor] : state.tensors()) values.push_back(tensor);
  learner.world->expect_close(values, what);
}

void begin_task(Learner& learner, const Task& task) {
  learner.method->begin_task(task);
  expect_carried_alike(learner,
                       "the numbers with which task " + std::to_string(task.index + 1) + " begins");
}

void end_task(Learner& learner, const Task& task) {
  learner.world->expect_equal(learner.method->parameters(), "the parameters after a task");
  learner.method->end_task(task);
  expect_carried_alike(learner, "the numbers after a task");
}

// What was measured stands without the files; other runs would compute the queries again.
void keep_queries(QueryModel& queries, Progress& progress) {
  try {
    queries.keep();
  } catch (const Error& error) {
    progress.info(std::string("warning: efficiency.query_cache: ") + error.what());
  }
}

double percent(int64_t correct, int64_t images) {
  return 100.0 * static_cast<double>(correct) / static_cast<double>(images);  // of none: NaN
}

// One pass over every task seen so far gives both matrices' next row. After a task that the stream
// does not test, nothing is known, and JSON says null.
struct TestOfAllSeen {
  AccuracyRows rows;
  Json confusion;  // null where nothing was tested
};
TestOfAllSeen test_all_seen(Session& session, const Task& task, const Observers& observers) {
  AccuracyRows rows;
  Confusion confusion;
  for (int64_t seen = 0; seen <= task.index; ++seen) {
    double class_incremental = std::nan(""), task_incremental = std::nan("");
    if (task.is_tested) {
      const Task& earlier = session.stream.tasks[static_cast<size_t>(seen)];
      const Correct correct = evaluate(session, earlier, task.last_label(), observers);
      class_incremental = percent(correct.class_incremental, correct.images);
      task_incremental = percent(correct.task_incremental, correct.images);
      confusion.add(earlier, correct.predicted);
    }
    rows.class_incremental.push_back(class_incremental);
    rows.task_incremental.push_back(task_incremental);
  }
  if (!task.is_tested) return {rows, nullptr};
  return {rows, confusion.to_json(session.stream, session.train->class_names(), task.index,
                                  task.last_label())};
}

}  // namespace

Result run_experiment(const Config& config, const RunOptions& options, Progress& progress) {
  MemoryLimit limit(config);
  const Config fitted = limit.fit(config, /*divides=*/options.world->size() == 1,
                                  [&](const std::string& line) { progress.info(line); });
  reset_peak_rss_bytes();  // of this experiment, not of what was before it
  // What there is to learn, in what order, and who learns it.
  Session session =
      open_session(fitted, options.world->writes() ? options.output : "", options.world);
  Learner& learner = session.learner;
  for (const std::string& note : session.notes) progress.info("note: " + note);
  report_inputs(learner.inputs, progress);
  const Json run_identity =
      identity(config, input_digests(config, learner.inputs, *session.train, *session.test));
  if (const std::string note = share_queries(session, run_identity); !note.empty()) {
    progress.info("note: " + note);
  }
  Result result(make_head(session, config, run_identity));
  if (!session.stream.disjoint) result.set_tasks_share_classes();
  if (!config.eval.offline_result.empty()) {
    result.set_offline(read_offline_result(config.eval.offline_result, session.stream.classes(),
                                           tested_images(config)));
  }

  // Where it is kept, and who watches. From here on a kill loses nothing that was saved.
  RunFolder folder(options.output, options.resume, config, run_identity, options.world->writes());
  Position position;
  const bool found = options.resume && folder.restore(learner, position, result);
  if (options.resume) {
    progress.info(resume_line(found, result, position, options.output));
    for (const std::string& note : folder.notes()) progress.info(note);
  }
  if (!found && options.continues) {
    go_on_from(*options.continues, session, folder, position, result);
  }
  limit.watch(session, result.memory(), position);
  limit.changed = [&] { result.set_memory(limit.to_json()); };
  limit.changed();
  options.world->expect_equal({torch::tensor({position.task, position.iteration})},
                              "the positions to go on from");
  const auto tasks = static_cast<int64_t>(session.stream.tasks.size());
  ProgressObserver line(progress, tasks);
  Checkpoints checkpoints(folder, learner, position, result);
  limit.save = [&](Optimizer& optimizer) { checkpoints.save(&optimizer); };
  AnytimeTests anytime(session, result);
  Predictions predictions(folder.predictions_path(), config.eval.predictions, *session.test,
                          session.stream, *options.world);
  Observers observers{&line, &result, &checkpoints, &limit, &predictions};
  // Before a checkpoint, which then holds the test of its step.
  if (config.eval.every > 0) observers.insert(observers.begin() + 2, &anytime);

  try {
    while (position.task < tasks) {
      const Task& task = session.stream.tasks[static_cast<size_t>(position.task)];
      reset_peak_tensor_bytes();
      learner.images->set_task(task);
      if (!position.trained) {
        if (position.iteration == 0) {
          result.begin_task(task, session.train->class_names(),
                            learner.efficiency->planner.blocks());
          begin_task(learner, task);
          result.set_parameters(learner.parameters());
        }
        train_task(session, task, position, observers);
        end_task(learner, task);
        // The task's images are never seen again by the learner past this line: only what the
        // method itself stored.
        result.finish_training(position.iteration, position.macs, learner.state_bytes());
        position.trained = true;
        checkpoints.save();
        limit.enforce("training");
      }

      const auto [rows, confusion] = test_all_seen(session, task, observers);
      result.add_row(rows);
      if (task.is_tested) {
        progress.accuracy_row(position.task, rows.class_incremental);
        result.set_confusion(confusion);
        predictions.write(task);
      }
      result.set_queries_computed_once(learner.efficiency->queries.cached_splits());
      result.set_queries_from_files(learner.efficiency->queries.from_files());
      folder.add_costs(result);

      position = {position.task + 1, 0, position.total_iterations, false};
      if (position.task == tasks) result.complete();
      folder.write_result(result);
      checkpoints.save();
      keep_queries(learner.efficiency->queries, progress);
    }
  } catch (const Diverged&) {
    folder.step_back();
    throw;
  }
  return result;
}

}  // namespace rep
