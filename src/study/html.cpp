// rep report --html: the table and its pictures as one page, which loads nothing.
#include <algorithm>
#include <functional>
#include <set>

#include "study/class_pages.h"
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
<meta name="color-scheme" content="light dark"/>
<title>Results of rep</title>
<style>
:root { color-scheme: light dark; --ground: #ffffff; --text: #15181c; --soft: #5b636d;
        --rule: #d9dde2; --strong: #444a52; --bar: #0072B2; --card: #f6f7f9; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5em auto; padding: 0 1.25em;
       max-width: 100em; color: var(--text); background: var(--ground); }
h1 { font-size: 1.5em; } h2 { font-size: 1.25em; margin-top: 2em; } h3 { font-size: 1.05em; }
h4 { margin: 1em 0 0.2em; font-size: 0.95em; color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.95em; }
th, td { padding: 0.3em 0.75em; text-align: right; border-bottom: 1px solid var(--rule);
         white-space: nowrap; }
th { border-bottom: 2px solid var(--strong); vertical-align: bottom; white-space: normal; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--ground); }
.label { text-align: left; }
.wrap { text-align: left; white-space: normal; min-width: 22em; }
.names td.label { white-space: normal; }
.scroll { overflow-x: auto; }
.grid { display: grid; gap: 1.25em;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 25em), 1fr)); }
figure { margin: 0; padding: 0.75em; background: var(--card); border-radius: 8px;
         break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { display: flex; flex-wrap: wrap; gap: 0.1em 1.2em; font-size: 0.88em;
             margin-top: 0.4em; }
figcaption span, td span.row { display: inline-flex; align-items: center; gap: 0.45em; }
figure svg.mark, svg.mark { width: 32px; height: 12px; flex: none; }
svg.heat { max-width: none; height: auto; display: block; }
details { border-top: 1px solid var(--rule); padding: 0.6em 0; }
summary { cursor: pointer; font-weight: 600; }
.classes { display: flex; flex-wrap: wrap; gap: 1em 3em; }
.classes section { min-width: 0; max-width: 100%; }
.bars { list-style: none; margin: 0; padding: 0; font-size: 0.88em; display: grid;
        gap: 0.15em 1.6em; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21em), 1fr)); }
.bars li { display: flex; align-items: center; gap: 0.6em; margin: 0; }
.bars .name { flex: 1 1 8em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars .bar { flex: 0 0 5em; height: 0.7em; background: var(--rule); border-radius: 2px; }
.bars .bar span { display: block; height: 100%; background: var(--bar); border-radius: 2px; }
.bars .value { flex: 0 0 3em; text-align: right; font-variant-numeric: tabular-nums; }
li { margin: 0.2em 0; } .notes, p { color: var(--soft); }
svg text { fill: var(--text); } svg text.on-dark { fill: #ffffff; }
svg [stroke="#dddddd"] { stroke: var(--rule); } svg [stroke="#444444"] { stroke: var(--strong); }
svg [fill="#ffffff"]:not(text) { fill: var(--card); }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --text: #e6e9ed; --soft: #a5adb8; --rule: #343a42; --strong: #8a939e;
          --bar: #4aa3df; --card: #1b1f24; }
  svg [stroke="#000000"] { stroke: #e6e9ed; } svg [fill="#000000"] { fill: #e6e9ed; }
  svg [stroke="#0072B2"] { stroke: #4aa3df; } svg [fill="#0072B2"] { fill: #4aa3df; }
  svg [stroke="#009E73"] { stroke: #2fc79b; } svg [fill="#009E73"] { fill: #2fc79b; }
  svg [stroke="#D55E00"] { stroke: #f0812e; } svg [fill="#D55E00"] { fill: #f0812e; }
}
@media (max-width: 40em) { body { padding: 0 0.75em; margin: 0.75em auto; }
  figure { padding: 0.4em; } th, td { padding: 0.3em 0.5em; } }
</style>
</head>
<body>
<h1>Results</h1>
)";

/// A picture and, below it, what its lines are.
std::string figure(const Chart& chart) {
  const std::string picture = draw(chart);
  if (picture.empty()) return "";
  std::string legend;
  for (const ChartSeries& series : chart.series) {
    if (series.points.empty()) continue;
    legend +=
        "<span>" + draw_mark(series.style, chart.joined) + xml_text(series.label) + "</span>\n";
  }
  if (picture.find("class=\"arrow\"") == std::string::npos) {  // of points that all but touch
    return "<figure>\n" + picture + "<figcaption>\n" + legend + "</figcaption>\n</figure>\n";
  }
  return "<figure>\n" + picture + "<figcaption>\n" + legend +
         "<span>arrows: from a method to the same with REP</span>\n</figcaption>\n</figure>\n";
}

/// A line or a point a row, in the row's own style.
std::string chart_of_rows(const Table& table, Chart chart,
                          const std::function<std::vector<ChartPoint>(const Row&)>& points) {
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const Row& row = table.rows[i];
    chart.series.push_back({label_of(row), points(row), row.style});
    if (!chart.joined && row.base) chart.arrows.emplace_back(*row.base, i);
  }
  return figure(chart);
}

std::string chart_over_tasks(const Table& table, const std::string& title,
                             const std::string& metric, const std::string& unit) {
  return chart_of_rows(table, {title, "tasks learnt", unit, {}, /*joined=*/true},
                       [&](const Row& row) { return over_tasks(row, metric); });
}

/// Final accuracy against a cost; "" where no result has it.
std::string chart_of_cost(const Table& table, const std::string& title, const std::string& key,
                          const std::string& unit) {
  return chart_of_rows(table, {title, unit, "average accuracy at the end, %", {}, /*joined=*/false},
                       [&](const Row& row) { return against_cost(row, key); });
}

/// "" where no result says what its blocks did.
std::string chart_of_blocks(const Table& table, const std::string& title, const std::string& key,
                            const std::string& unit, double scale) {
  return chart_of_rows(table, {title, "block of the ViT", unit, {}, /*joined=*/true},
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
      const bool marked = i > 0 && c == 0;
      text += "<" + tag + (c < labels ? " class=\"label\"" : "") + ">" + (best ? "<b>" : "") +
              (marked ? "<span class=\"row\">" + draw_mark(table.rows[i - 1].style, true) : "") +
              xml_text(cell) + (marked ? "</span>" : "") + (best ? "</b>" : "") + "</" + tag + ">";
    }
    text += "</tr>\n";
  }
  return text + "</table></div>\n";
}

/// What differs between rows and has no column in the table: a column a key, but for the methods'
/// own options, which share one. "" for nothing.
std::string other_differences(const Table& table) {
  const auto value_in = [](const Row& row, const std::string& key) {
    std::set<std::string> values;
    for (const Run* run : row.runs) {
      const auto found = run->settings.find(key);
      if (found != run->settings.end()) values.insert(found->second);
    }
    std::string text;
    for (const std::string& value : values) text += (text.empty() ? "" : " | ") + value;
    return key.rfind("inputs.", 0) == 0 ? text.substr(0, 10) : text;
  };
  std::vector<std::string> keys, options;
  for (const std::string& key : table.differing) {
    if (std::count(table.label_keys.begin(), table.label_keys.end(), key)) continue;
    (key.rfind("method.", 0) == 0 ? options : keys).push_back(key);
  }
  if (keys.empty() && options.empty()) return "";
  std::string text =
      "<details>\n<summary>What else differs between the rows</summary>\n"
      "<div class=\"scroll\"><table>\n<tr><th class=\"label\">row</th>";
  for (const std::string& key : keys) text += "<th>" + xml_text(key) + "</th>";
  if (!options.empty()) text += "<th class=\"label\">options of the method</th>";
  text += "</tr>\n";
  for (const Row& row : table.rows) {
    text += "<tr><td class=\"label\">" + xml_text(row.name) + "</td>";
    for (const std::string& key : keys) text += "<td>" + xml_text(value_in(row, key)) + "</td>";
    std::string own;
    for (const std::string& key : options) {
      const std::string value = value_in(row, key);
      if (!value.empty()) own += (own.empty() ? "" : ", ") + word_of(key) + " " + value;
    }
    text += options.empty() ? "" : "<td class=\"wrap\">" + xml_text(own) + "</td>";
    text += "</tr>\n";
  }
  return text + "</table></div>\n</details>\n";
}

std::string pictures(const Table& table) {
  std::string text = chart_over_tasks(table, "Accuracy over tasks", "average_accuracy",
                                      "mean accuracy of the tasks so far, %");
  text += chart_over_tasks(table, "Forgetting over tasks", "forgetting", "forgetting, points");
  text += chart_of_cost(table, "Accuracy against compute", "train_macs",
                        "training compute, billions of MACs");
  text += chart_of_cost(table, "Accuracy against memory", "peak_tensor_bytes",
                        "peak memory of tensors, MB");
  text += chart_of_cost(table, "Accuracy against what is carried", "state_bytes",
                        "carried from task to task, kB");
  text += chart_of_cost(table, "Accuracy against energy", "energy_joules", "energy, J");
  text += chart_of_blocks(table, "Tokens in each block", "tokens_per_block_mean",
                          "tokens that enter it in a training step", 1);
  text += chart_of_blocks(table, "How often each block runs", "block_run_fraction",
                          "training steps that run it, %", 100);
  return "<div class=\"grid\">\n" + text + "</div>\n";
}

}  // namespace

std::string as_html(const Table& table) {
  std::string text = kHead;
  if (table.rows.empty()) {
    text += "<p>No run is finished.</p>\n";
  } else {
    text += html_table(table);
    text += "<p>Mean ± standard deviation over n runs; the best of a column is bold.</p>\n";
    text += other_differences(table);
  }
  if (!table.notes.empty()) {
    text += "<ul class=\"notes\">\n";
    for (const std::string& note : table.notes) text += "<li>" + xml_text(note) + "</li>\n";
    text += "</ul>\n";
  }
  return text + pictures(table) + class_pages(table) + "</body>\n</html>\n";
}

}  // namespace rep
