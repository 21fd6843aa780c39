// rep report --html: the table and its pictures as one page, which loads nothing.
#include <algorithm>
#include <functional>

#include "study/curves.h"
#include "study/report_table.h"
#include "study/svg.h"

namespace rep {
namespace {

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

/// A line or a point a row, in the row's own style.
std::string chart_of_rows(const Table& table, Chart chart,
                          const std::function<std::vector<ChartPoint>(const Row&)>& points) {
  for (const Row& row : table.rows) {
    chart.series.push_back({label_of(row), points(row), row.style});
  }
  return draw(chart);
}

std::string chart_over_tasks(const Table& table, const std::string& title,
                             const std::string& metric, const std::string& unit) {
  return chart_of_rows(table, {title, "tasks learned", unit, {}, /*joined=*/true},
                       [&](const Row& row) { return over_tasks(row, metric); });
}

/// Final accuracy against a cost; "" where no result has it.
std::string chart_of_cost(const Table& table, const std::string& what, const std::string& key) {
  const std::string unit = column_of(key, Json::object()).header;
  return chart_of_rows(
      table, {"Accuracy against " + what, unit, "average accuracy, %", {}, /*joined=*/false},
      [&](const Row& row) { return against_cost(row, key); });
}

/// "" where no result says what its blocks did.
std::string chart_of_blocks(const Table& table, const std::string& title, const std::string& key,
                            const std::string& unit, double scale) {
  return chart_of_rows(table, {title, "block", unit, {}, /*joined=*/true},
                       [&](const Row& row) { return over_blocks(row, key, scale); });
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
