#include "run/result.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rep {

namespace {

double seconds(const PhaseCost& cost, Phase phase) {
  return cost.seconds[static_cast<size_t>(phase)];
}
int64_t macs(const PhaseCost& cost, Phase phase) { return cost.macs[static_cast<size_t>(phase)]; }

int64_t total_macs(const PhaseCost& cost) {
  int64_t total = 0;
  for (const int64_t phase : cost.macs) total += phase;
  return total;
}

double train_seconds(const PhaseCost& cost) {
  double total = -seconds(cost, Phase::kEval);
  for (const double phase : cost.seconds) total += phase;
  return total;
}

// Joules of training and testing, as seconds are told apart; null where they were not measured.
Json joules_json(const PhaseCost& cost) {
  const auto joules = [&](Phase phase) { return cost.joules[static_cast<size_t>(phase)]; };
  const double total = std::accumulate(cost.joules.begin(), cost.joules.end(), 0.0);
  if (std::isnan(total)) return nullptr;
  return {{"train", total - joules(Phase::kEval)}, {"eval", joules(Phase::kEval)},
          {"data_wait", joules(Phase::kDataWait)}, {"select", joules(Phase::kSelect)},
          {"forward", joules(Phase::kForward)},    {"backward", joules(Phase::kBackward)},
          {"step", joules(Phase::kStep)}};
}

// What total and each entry of per_task have in common. Products outside the named phases (a
// method's work at a task's begin and end) count as forward: nothing executed is left out; beside
// that, `outside_steps` says how many they are.
Json phase_json(const PhaseCost& cost, int64_t step_macs) {
  Json json;
  json["seconds"] = {{"train", train_seconds(cost)},
                     {"eval", seconds(cost, Phase::kEval)},
                     {"data_wait", seconds(cost, Phase::kDataWait)},
                     {"select", seconds(cost, Phase::kSelect)},
                     {"forward", seconds(cost, Phase::kForward)},
                     {"backward", seconds(cost, Phase::kBackward)},
                     {"step", seconds(cost, Phase::kStep)}};
  const int64_t backward = macs(cost, Phase::kBackward), select = macs(cost, Phase::kSelect);
  const int64_t eval = macs(cost, Phase::kEval);
  json["macs"] = {{"train",
                   {{"select", select},
                    {"forward", total_macs(cost) - eval - backward - select},
                    {"backward", backward}}},
                  {"eval", eval},
                  {"outside_steps", std::max<int64_t>(0, total_macs(cost) - eval - step_macs)}};
  json["flops"] = 2 * total_macs(cost);
  json["energy_by_phase"] = joules_json(cost);
  json["energy_joules"] = json["energy_by_phase"].is_null()
                              ? Json(nullptr)
                              : Json(json["energy_by_phase"]["train"].get<double>() +
                                     json["energy_by_phase"]["eval"].get<double>());
  return json;
}

Json matrix_json(const AccuracyMatrix& matrix, size_t tasks) {
  Json rows = Json::array();
  for (const auto& row : matrix.a) {
    Json cells = row;
    while (cells.size() < tasks) cells.push_back(nullptr);
    rows.push_back(std::move(cells));
  }
  return rows;
}

// Rows as a checkpoint holds them, in which "not a number" became null.
std::vector<std::vector<double>> read_matrix(const Json& rows) {
  std::vector<std::vector<double>> matrix;
  for (const Json& row : rows) {
    matrix.emplace_back();
    for (const Json& cell : row) {
      matrix.back().push_back(cell.is_null() ? std::nan("") : cell.get<double>());
    }
  }
  return matrix;
}

// A list for each field.
Json anytime_json(const std::vector<AnytimePoint>& points) {
  Json json{{"images", Json::array()}, {"accuracy", Json::array()}, {"classes", Json::array()}};
  for (const AnytimePoint& point : points) {
    json["images"].push_back(point.images);
    json["accuracy"].push_back(point.accuracy);
    json["classes"].push_back(point.classes);
  }
  return json;
}

Json bytes_or_null(int64_t bytes) { return bytes < 0 ? Json(nullptr) : Json(bytes); }

}  // namespace

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void TaskCost::state(State& s) {
  Json json{{"seconds", phases.seconds},
            {"macs", phases.macs},
            {"joules", phases.joules},
            {"peak_tensor_bytes", peak_tensor_bytes},
            {"cuda_peak_bytes", cuda_peak_bytes},
            {"state_bytes", state_bytes},
            {"step_macs", step_macs}};
  s("cost", json);
  json.at("seconds").get_to(phases.seconds);
  json.at("macs").get_to(phases.macs);
  for (size_t i = 0; i < phases.joules.size(); ++i) {
    const Json& joules = json.at("joules").at(i);  // a checkpoint's null: not measured
    phases.joules[i] = joules.is_null() ? std::nan("") : joules.get<double>();
  }
  json.at("peak_tensor_bytes").get_to(peak_tensor_bytes);
  json.at("cuda_peak_bytes").get_to(cuda_peak_bytes);
  json.at("state_bytes").get_to(state_bytes);
  json.at("step_macs").get_to(step_macs);
  steps.state(s);
}

void Result::begin_task(const Task& task, const std::vector<std::string>& class_names,
                        int64_t blocks) {
  Json names = Json::array();
  for (const int64_t id : task.classes) names.push_back(class_names[static_cast<size_t>(id)]);
  tasks_.push_back({{"index", task.index},
                    {"classes", task.classes},
                    {"class_names", names},
                    {"train_images", task.train.size()},
                    {"test_images", task.test.size()},
                    {"iterations", 0}});
  if (!task.domain.empty()) tasks_.back()["domain"] = task.domain;
  class_incremental_.n.push_back(static_cast<int64_t>(task.test.size()));
  task_incremental_.n = class_incremental_.n;
  costs_.emplace_back().steps = StepLog(blocks);
}

void Result::after_step(const Step& step, Optimizer&) {
  step_seconds_.push_back(step.seconds);
  costs_.back().steps.add(step.tokens);
}

void Result::finish_training(int64_t iterations, int64_t step_macs, int64_t state_bytes) {
  tasks_.back()["iterations"] = iterations;
  costs_.back().step_macs = step_macs;
  costs_.back().state_bytes = state_bytes;
}

void Result::add_row(const AccuracyRows& rows) {
  class_incremental_.a.push_back(rows.class_incremental);
  task_incremental_.a.push_back(rows.task_incremental);
}

void Result::add_anytime(const AnytimePoint& point) {
  anytime_.push_back(point);
  class_incremental_.anytime.push_back(point.accuracy);
}

void Result::change(const Json& config, const Json& identity,
                    const std::vector<std::string>& notes) {
  head_["config"] = config;
  head_["identity"] = identity;
  for (const std::string& note : notes) head_["notes"].push_back(note);
}

Json Result::to_json() const {
  Json json{{"schema", 1}, {"complete", complete_}};
  json.update(head_);
  json["tasks"] = tasks_;
  const size_t tasks = tasks_.size();
  json["accuracy"] = {{"class_incremental", matrix_json(class_incremental_, tasks)}};
  if (!tasks_share_classes_) {
    json["accuracy"]["task_incremental"] = matrix_json(task_incremental_, tasks);
  }
  if (!anytime_.empty()) json["accuracy"]["anytime"] = anytime_json(anytime_);
  if (!confusion_.is_null()) json["confusion"] = confusion_;
  json["metrics"] = Json::object();
  if (!class_incremental_.a.empty()) {
    json["metrics"] = all_metrics(class_incremental_);
    if (!tasks_share_classes_) json["metrics"]["task_incremental"] = all_metrics(task_incremental_);
  }
  json["cost"] = cost_json();
  return json;
}

Json Result::cost_json() const {
  PhaseCost sum;
  StepLog steps;
  int64_t peak = 0, cuda_peak = -1, step_macs = 0, iterations = 0;
  Json per_task = Json::array();
  for (const TaskCost& cost : costs_) {
    sum += cost.phases;
    step_macs += cost.step_macs;
    peak = std::max(peak, cost.peak_tensor_bytes);
    cuda_peak = std::max(cuda_peak, cost.cuda_peak_bytes);
    steps += cost.steps;
    Json entry = phase_json(cost.phases, cost.step_macs);
    entry["peak_tensor_bytes"] = cost.peak_tensor_bytes;
    entry["cuda_peak_bytes"] = bytes_or_null(cost.cuda_peak_bytes);
    entry["state_bytes"] = cost.state_bytes;
    per_task.push_back(std::move(entry));
  }
  Json total = phase_json(sum, step_macs);
  total["peak_tensor_bytes"] = peak;
  total["peak_rss_bytes"] = peak_rss_bytes();
  total["cuda_peak_bytes"] = bytes_or_null(cuda_peak);
  const std::string source = energy_source();
  const bool lost = total["energy_joules"].is_null() && source.rfind("none", 0) != 0;
  total["energy_source"] =
      lost ? "none: a part of the run was not measured (" + source + ")" : source;

  const auto per_step = [&](int64_t count) {
    return steps.steps == 0 ? 0.0 : static_cast<double>(count) / static_cast<double>(steps.steps);
  };
  int64_t tokens = 0, executions = 0;
  Json tokens_mean = Json::array(), run_fraction = Json::array();
  for (size_t i = 0; i < steps.tokens.size(); ++i) {
    tokens += steps.tokens[i];
    executions += steps.executions[i];
    const auto ran = static_cast<double>(std::max<int64_t>(1, steps.executions[i]));
    tokens_mean.push_back(static_cast<double>(steps.tokens[i]) / ran);
    run_fraction.push_back(per_step(steps.executions[i]));
  }
  for (const Json& task : tasks_) iterations += task["iterations"].get<int64_t>();
  Json per_iteration{
      {"seconds_median", step_seconds_.empty() ? Json(nullptr) : Json(median(step_seconds_))},
      {"flops_mean",
       2 * static_cast<double>(step_macs) / static_cast<double>(std::max<int64_t>(1, iterations))},
      {"tokens_mean",
       executions == 0 ? 0.0 : static_cast<double>(tokens) / static_cast<double>(executions)},
      {"blocks_mean", per_step(executions)},
      {"efficiency",
       {{"tokens_per_block_mean", tokens_mean}, {"block_run_fraction", run_fraction}}}};
  if (steps.backward_executions != steps.executions) {
    Json& fractions = per_iteration["efficiency"]["block_backward_fraction"] = Json::array();
    for (const int64_t executions_of_block : steps.backward_executions) {
      fractions.push_back(per_step(executions_of_block));
    }
  }
  return {{"total", std::move(total)},
          {"per_task", std::move(per_task)},
          {"per_iteration", std::move(per_iteration)},
          {"state_bytes", costs_.empty() ? 0 : costs_.back().state_bytes},
          {"parameters", parameters_}};
}

void Result::state(State& s) {
  s("head", head_);
  s("tasks", tasks_);
  s("parameters", parameters_);
  Json matrices{{"class", class_incremental_.a},
                {"task", task_incremental_.a},
                {"n", class_incremental_.n},
                {"confusion", confusion_},
                {"anytime", anytime_json(anytime_)}};
  s("accuracy", matrices);
  class_incremental_.a = read_matrix(matrices.at("class"));
  task_incremental_.a = read_matrix(matrices.at("task"));
  matrices.at("n").get_to(class_incremental_.n);
  confusion_ = matrices.value("confusion", Json());  // a checkpoint may be older than that
  task_incremental_.n = class_incremental_.n;
  const Json points = matrices.value("anytime", anytime_json({}));  // not in older checkpoints
  anytime_.clear();
  class_incremental_.anytime.clear();
  for (size_t i = 0; i < points.at("images").size(); ++i) {
    add_anytime({points["images"].at(i).get<int64_t>(), points.at("accuracy").at(i).get<double>(),
                 points.at("classes").at(i).get<int64_t>()});
  }
  auto count = static_cast<int64_t>(costs_.size());
  s("costs", count);
  costs_.resize(static_cast<size_t>(count));
  for (size_t i = 0; i < costs_.size(); ++i) {
    s.scope("task" + std::to_string(i), [&](State& inner) { costs_[i].state(inner); });
  }
  s("complete", complete_);
}

}  // namespace rep
