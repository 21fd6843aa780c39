#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/suggest.h"
#include "study/report_table.h"

namespace rep {
namespace {

const std::vector<Column>& short_names() {
  static const std::vector<Column> kColumns{
      {"task_incremental_accuracy", "task-incremental %",
       "/metrics/task_incremental/average_accuracy", 1, 2, 1, true},
      {"train_macs", "train GMAC", "", 1e-9, 0, -1, false},
      {"eval_macs", "test GMAC", "/cost/total/macs/eval", 1e-9, 0, -1, false},
      {"step_flops", "GFLOP/step", "/cost/per_iteration/flops_mean", 1e-9, 1, -1, false},
      {"step_seconds", "s/step", "/cost/per_iteration/seconds_median", 1, 3, -1, false},
      {"tokens", "tokens", "/cost/per_iteration/tokens_mean", 1, 1, 0, false},
      {"blocks", "blocks", "/cost/per_iteration/blocks_mean", 1, 2, 0, false},
      {"train_seconds", "train s", "/cost/total/seconds/train", 1, 1, -1, false},
      {"eval_seconds", "test s", "/cost/total/seconds/eval", 1, 1, -1, false},
      {"peak_tensor_bytes", "peak MB", "/cost/total/peak_tensor_bytes", 1e-6, 0, -1, false},
      {"peak_rss_bytes", "RSS MB", "/cost/total/peak_rss_bytes", 1e-6, 0, -1, false},
      {"state_bytes", "carried kB", "/cost/state_bytes", 1e-3, 0, -1, false},
      {"energy_joules", "J", "/cost/total/energy_joules", 1, 0, -1, false},
      {"trainable", "trainable", "/cost/parameters/trainable", 1, 0, -1, false}};
  return kColumns;
}

}  // namespace

Column column_of(const std::string& key, const Json& metrics) {
  for (const Column& column : short_names()) {
    if (column.key == key) return column;
  }
  if (metrics.contains(key) && !metrics[key].is_object()) {
    const bool loss = key.rfind("forgetting", 0) == 0;
    std::string header = key;
    std::replace(header.begin(), header.end(), '_', ' ');
    return {key, header, "/metrics/" + key, 1, 2, loss ? -1 : 1, true};
  }
  std::vector<std::string> known;
  for (const Column& column : short_names()) known.push_back(column.key);
  for (const auto& [name, value] : metrics.items()) {
    if (!value.is_object()) known.push_back(name);
  }
  throw Error("unknown metric " + quoted(key) + did_you_mean(key, known) +
              "; known: " + join(known));
}

std::optional<double> value_of(const Column& column, const Json& result) {
  if (column.key == "train_macs") {
    const Json::json_pointer at("/cost/total/macs/train");
    if (!result.contains(at)) return std::nullopt;
    double sum = 0;
    for (const auto& [phase, macs] : result[at].items()) {
      if (macs.is_number()) sum += macs.get<double>();
    }
    return sum * column.scale;
  }
  const Json::json_pointer at(column.pointer);
  if (!result.contains(at) || !result[at].is_number()) return std::nullopt;
  return result[at].get<double>() * column.scale;
}

Statistic statistic(const std::vector<double>& values) {
  Statistic s;
  s.n = static_cast<int64_t>(values.size());
  if (values.empty()) return s;
  for (const double value : values) s.mean += value / static_cast<double>(s.n);
  double squares = 0;
  for (const double value : values) squares += (value - s.mean) * (value - s.mean);
  if (s.n > 1) s.deviation = std::sqrt(squares / static_cast<double>(s.n - 1));
  return s;
}

}  // namespace rep
