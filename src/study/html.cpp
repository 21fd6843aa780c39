// rep report --html: the table and its pictures as one page, which loads nothing.
#include <algorithm>
#include <cmath>

#include "core/metrics.h"
#include "study/report_table.h"
#include "study/svg.h"

namespace rep {
namespace {

// A result is an untrusted file: what is drawn of it has bounds.
constexpr size_t kMostTasks = 10000, kMostBlocks = 1000;
constexpr double kLeast = 1e-100, kMost = 1e100;

constexpr char kHead[] = R"(<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>Results of rep</title>
<style>
body { font-family: sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #111; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.7em; text-align: right; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #444; }
.label { text-align: left; }
.scroll { overflow-x: auto; }
svg { width: 100%; max-width: 48em; height: auto; display: block; margin: 1.5em 0;
      break-inside: avoid; }
li { margin: 0.2em 0; }
</style>
</head>
<body>
<h1>Results</h1>
)";

std::string label_of(const Row& row) {
  std::string label;
  for (const std::string& part : row.labels) label += (label.empty() ? "" : " ") + part;
  if (label.empty()) label = row.runs.front()->name;
  return label + " (n = " + std::to_string(row.runs.size()) + ")";
}

/// The class-incremental matrix as far as it is a triangle of percentages: joint learning has none
/// before its end.
AccuracyMatrix matrix_of(const Json& result) {
  AccuracyMatrix matrix;
  const Json::json_pointer at("/accuracy/class_incremental");
  if (!result.contains(at) || !result[at].is_array()) return matrix;
  for (const Json& row : result[at]) {
    const size_t tasks = matrix.a.size() + 1;
    if (tasks > kMostTasks || !row.is_array() || row.size() < tasks) break;
    std::vector<double> values;
    for (size_t i = 0; i < tasks && row[i].is_number(); ++i) values.push_back(row[i].get<double>());
    const bool percent = std::all_of(values.begin(), values.end(),
                                     [](double value) { return value >= 0 && value <= 100; });
    if (values.size() < tasks || !percent) break;
    matrix.a.push_back(std::move(values));
  }
  return matrix;
}

/// The metric after each task, mean and deviation over the runs that got that far.
ChartSeries over_tasks(const Row& row, const Metric& metric) {
  std::vector<std::vector<double>> values;  // [task][run]
  for (const Run* run : row.runs) {
    const AccuracyMatrix whole = matrix_of(run->result);
    AccuracyMatrix so_far;
    for (size_t t = 0; t < whole.a.size(); ++t) {
      so_far.a.push_back(whole.a[t]);
      so_far.n.push_back(1);  // the metrics drawn here are means over tasks
      if (values.size() <= t) values.emplace_back();
      values[t].push_back(metric.compute(so_far));
    }
  }
  ChartSeries series{label_of(row), {}};
  for (size_t t = 0; t < values.size(); ++t) {
    const Statistic s = statistic(values[t]);
    series.points.push_back({static_cast<double>(t + 1), s.mean, 0, s.deviation});
  }
  return series;
}

std::string chart_over_tasks(const Table& table, const std::string& title,
                             const std::string& metric, const std::string& unit) {
  Chart chart{title, "tasks learned", unit, {}, /*joined=*/true};
  const Metric& of = Registry<Metric>::get().at(metric).value;
  for (const Row& row : table.rows) chart.series.push_back(over_tasks(row, of));
  return draw(chart);
}

std::vector<double> values_of(const Column& column, const Row& row) {
  std::vector<double> values;
  for (const Run* run : row.runs) {
    const auto value = value_of(column, run->result);
    if (value && std::abs(*value) < kMost) values.push_back(*value);
  }
  return values;
}

/// Final accuracy against a cost; "" where no result has it.
std::string chart_of_cost(const Table& table, const std::string& what, const std::string& key) {
  const Column cost = column_of(key, Json::object());
  const Column accuracy{"average_accuracy", "", "/metrics/average_accuracy"};
  Chart chart{"Accuracy against " + what, cost.header, "average accuracy, %", {}, false};
  for (const Row& row : table.rows) {
    const Statistic x = statistic(values_of(cost, row)), y = statistic(values_of(accuracy, row));
    ChartSeries series{label_of(row), {}};
    if (x.n > 0 && y.n > 0 && x.mean > kLeast) {
      series.points.push_back({x.mean, y.mean, x.deviation, y.deviation});
    }
    chart.series.push_back(std::move(series));
  }
  return draw(chart);
}

/// What the training steps did in each block of a ViT, mean and deviation over the runs; "" where
/// no result says it.
std::string chart_of_blocks(const Table& table, const std::string& title, const std::string& key,
                            const std::string& unit, double scale) {
  Chart chart{title, "block", unit, {}, /*joined=*/true};
  const Json::json_pointer at("/cost/per_iteration/efficiency/" + key);
  for (const Row& row : table.rows) {
    std::vector<std::vector<double>> values;  // [block][run]
    for (const Run* run : row.runs) {
      if (!run->result.contains(at) || !run->result[at].is_array()) continue;
      const Json& blocks = run->result[at];
      for (size_t i = 0; i < std::min(blocks.size(), kMostBlocks); ++i) {
        if (!blocks[i].is_number() || std::abs(blocks[i].get<double>()) > kMost) break;
        if (values.size() <= i) values.emplace_back();
        values[i].push_back(scale * blocks[i].get<double>());
      }
    }
    ChartSeries series{label_of(row), {}};
    for (size_t i = 0; i < values.size(); ++i) {
      const Statistic s = statistic(values[i]);
      series.points.push_back({static_cast<double>(i + 1), s.mean, 0, s.deviation});
    }
    chart.series.push_back(std::move(series));
  }
  return draw(chart);
}

std::string html_table(const Table& table) {
  // Marks that xml_text would replace, taken off before.
  const auto lines = cells(table, {" ± ", "\x02", "\x03"});
  const size_t labels = std::max<size_t>(1, table.label_keys.size());
  std::string text = "<div class=\"scroll\"><table>\n";
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string tag = i == 0 ? "th" : "td";
    text += "<tr>";
    for (size_t c = 0; c < lines[i].size(); ++c) {
      std::string cell = lines[i][c];
      const bool best = c > labels && cell.size() > 2 && cell.front() == '\x02';
      if (best) cell = cell.substr(1, cell.size() - 2);
      text += "<" + tag + (c < labels ? " class=\"label\"" : "") + ">" + (best ? "<b>" : "") +
              xml_text(cell) + (best ? "</b>" : "") + "</" + tag + ">";
    }
    text += "</tr>\n";
  }
  return text + "</table></div>\n";
}

}  // namespace

std::string as_html(const Table& table) {
  std::string text = kHead;
  if (table.rows.empty()) {
    text += "<p>No run is finished.</p>\n";
  } else {
    text += html_table(table);
    text += "<p>Mean ± standard deviation over n runs; the best of a column is bold.</p>\n";
  }
  if (!table.notes.empty()) {
    text += "<ul>\n";
    for (const std::string& note : table.notes) text += "<li>" + xml_text(note) + "</li>\n";
    text += "</ul>\n";
  }
  text += chart_over_tasks(table, "Accuracy over tasks", "average_accuracy",
                           "mean accuracy over tasks so far, %");
  text += chart_over_tasks(table, "Forgetting over tasks", "forgetting", "forgetting, points");
  for (const auto& [what, key] : {std::pair{"training MACs", "train_macs"},
                                  {"peak bytes", "peak_tensor_bytes"},
                                  {"bytes carried between tasks", "state_bytes"},
                                  {"energy", "energy_joules"}}) {
    text += chart_of_cost(table, what, key);
  }
  text += chart_of_blocks(table, "Tokens a block", "tokens_per_block_mean",
                          "tokens that enter the block in a step that runs it", 1);
  text += chart_of_blocks(table, "Blocks a step", "block_run_fraction",
                          "training steps that run the block, %", 100);
  return text + "</body>\n</html>\n";
}

}  // namespace rep
