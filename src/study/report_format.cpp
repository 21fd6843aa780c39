#include <algorithm>
#include <cstdio>
#include <optional>

#include "core/csv.h"
#include "study/curves.h"
#include "study/report_table.h"

namespace rep {
namespace {

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

// The columns' best rows, where "best" means something and there is more than one row.
std::vector<std::optional<double>> best_of(const Table& table) {
  std::vector<std::optional<double>> best(table.columns.size());
  if (table.rows.size() < 2) return best;
  // A figure of validation images is not compared with one of a test.
  const bool all_validation = std::all_of(table.rows.begin(), table.rows.end(), is_of_validation);
  for (size_t c = 0; c < table.columns.size(); ++c) {
    if (table.columns[c].better == 0) continue;
    for (const Row& row : table.rows) {
      const Statistic& s = row.values[c];
      if (s.n == 0 || is_of_validation(row) != all_validation) continue;
      if (!best[c] || (s.mean - *best[c]) * table.columns[c].better > 0) best[c] = s.mean;
    }
  }
  return best;
}

std::string header_of(const std::string& key) {
  const std::string word = word_of(key);
  if (!word.empty()) return word;
  return key == "dataset.name" ? "data set" : key.substr(0, key.find('.'));
}

}  // namespace

std::vector<std::vector<std::string>> cells(const Table& table, const Style& style) {
  std::vector<std::vector<std::string>> lines(1);
  for (const std::string& key : table.label_keys) lines[0].push_back(header_of(key));
  if (table.label_keys.empty()) lines[0].emplace_back("name");
  lines[0].emplace_back("n");
  for (const Column& column : table.columns) lines[0].push_back(column.header);
  const auto best = best_of(table);
  for (const Row& row : table.rows) {
    std::vector<std::string> line = row.labels;
    if (line.empty()) line.push_back(row.runs.front()->name);
    line.push_back(std::to_string(row.runs.size()));
    for (size_t c = 0; c < table.columns.size(); ++c) {
      const Statistic& s = row.values[c];
      const Column& column = table.columns[c];
      std::string text = s.n == 0 ? "-" : number(s.mean, column.digits);
      if (s.n > 1 && column.deviation)
        text += style.plus_minus + number(s.deviation, column.digits);
      if (s.n > 0 && best[c] && s.mean == *best[c])
        text = style.bold_before + text + style.bold_after;
      line.push_back(text);
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

namespace {

// Columns on a screen: a character is what is not a UTF-8 continuation.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string as_table(const Table& table) {
  const auto lines = cells(table, {" ± ", "*", "*"});
  std::vector<size_t> widths(lines[0].size(), 0);
  for (const auto& line : lines) {
    for (size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], width_of(line[c]));
  }
  const size_t labels = std::max<size_t>(1, table.label_keys.size());
  std::string text;
  for (const auto& line : lines) {
    std::string out;
    for (size_t c = 0; c < line.size(); ++c) {
      const std::string space(widths[c] - width_of(line[c]), ' ');
      out += (c ? "  " : "") + (c < labels ? line[c] + space : space + line[c]);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  }
  for (const std::string& note : table.notes) text += note + "\n";
  return text;
}

std::string as_markdown(const Table& table) {
  const auto lines = cells(table, {" ± ", "**", "**"});
  std::string text;
  for (size_t i = 0; i < lines.size(); ++i) {
    for (const std::string& cell : lines[i]) {
      text += "| ";
      for (const char c : cell) text += c == '|' ? std::string("\\|") : std::string(1, c);
      text += " ";
    }
    text += "|\n";
    if (i > 0) continue;
    for (size_t c = 0; c < lines[0].size(); ++c) {
      text += c < std::max<size_t>(1, table.label_keys.size()) ? "|---" : "|---:";
    }
    text += "|\n";
  }
  for (const std::string& note : table.notes) text += "\n" + note + "\n";
  return text;
}

std::string latex(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string("_%&#${}").find(c) != std::string::npos) {
      out += std::string("\\") + c;
    } else if (c == '\\') {
      out += "\\textbackslash{}";
    } else if (c == '~' || c == '^') {
      out += std::string("\\") + c + "{}";
    } else {
      out += c;
    }
  }
  return out;
}

std::string as_latex(const Table& table) {
  // Marks that latex() leaves alone, exchanged afterwards.
  const auto lines = cells(table, {"\x01", "\x02", "\x03"});
  const size_t labels = std::max<size_t>(1, table.label_keys.size());
  std::string text = "% \\usepackage{booktabs}\n\\begin{tabular}{" + std::string(labels, 'l') +
                     std::string(lines[0].size() - labels, 'r') + "}\n\\toprule\n";
  for (size_t i = 0; i < lines.size(); ++i) {
    for (size_t c = 0; c < lines[i].size(); ++c) {
      text += c ? " & " : "";
      for (const char letter : latex(lines[i][c])) {
        switch (letter) {
          case '\x01':
            text += " $\\pm$ ";
            break;
          case '\x02':
            text += "\\textbf{";
            break;
          case '\x03':
            text += "}";
            break;
          default:
            text += letter;
        }
      }
    }
    text += " \\\\\n";
    if (i == 0) text += "\\midrule\n";
  }
  text += "\\bottomrule\n\\end{tabular}\n";
  for (const std::string& note : table.notes) text += "% " + note + "\n";
  return text;
}

std::string as_csv(const Table& table) {
  std::string text;
  for (const std::string& key : table.label_keys) text += csv_cell(key) + ",";
  text += "name,n";
  for (const Column& column : table.columns) {
    text += "," + column.key + "_mean," + column.key + "_sd";
  }
  text += "\n";
  for (const Row& row : table.rows) {
    for (const std::string& label : row.labels) text += csv_cell(label) + ",";
    text += csv_cell(row.runs.front()->name) + "," + std::to_string(row.runs.size());
    for (size_t c = 0; c < table.columns.size(); ++c) {
      const Statistic& s = row.values[c];
      const double scale = table.columns[c].scale;  // back to the result's own unit
      text += s.n == 0 ? ",,"
                       : "," + number(s.mean / scale, 6) + "," +
                             (s.n == 1 ? "" : number(s.deviation / scale, 6));  // of one: unknown
    }
    text += "\n";
  }
  return text;
}

std::string as_json(const Table& table) {
  Json rows = Json::array();
  for (const Row& row : table.rows) {
    Json settings = Json::object(), metrics = Json::object(), paths = Json::array();
    for (size_t k = 0; k < table.label_keys.size(); ++k) {
      settings[table.label_keys[k]] = row.labels[k];
    }
    for (size_t c = 0; c < table.columns.size(); ++c) {
      const Statistic& s = row.values[c];
      const double scale = table.columns[c].scale;
      metrics[table.columns[c].key] =
          s.n == 0 ? Json(nullptr)
                   : Json{{"mean", s.mean / scale},
                          {"sd", s.n == 1 ? Json(nullptr) : Json(s.deviation / scale)},
                          {"n", s.n}};
    }
    for (const Run* run : row.runs) paths.push_back(run->path);
    Json curves = Json::object();
    const auto curve = [&](const char* key, const std::vector<ChartPoint>& points) {
      Json x = Json::array(), mean = Json::array(), sd = Json::array();
      for (const ChartPoint& p : points) {
        x.push_back(p.x);
        mean.push_back(p.y);
        sd.push_back(p.dy);
      }
      curves[key] = {{"x", x}, {"mean", mean}, {"sd", sd}};
    };
    for (const char* metric : {"average_accuracy", "forgetting"}) {
      curve(metric, over_tasks(row, metric));
    }
    for (const char* key : {"tokens_per_block_mean", "block_run_fraction"}) {
      curve(key, over_blocks(row, key, 1));
    }
    rows.push_back({{"name", row.runs.front()->name},
                    {"label", label_of(row)},
                    {"settings", settings},
                    {"n", row.runs.size()},
                    {"metrics", metrics},
                    {"curves", curves},
                    {"style", style_json(row.style)},
                    {"base", row.base ? Json(*row.base) : Json(nullptr)},
                    {"results", paths}});
  }
  return to_text(Json{{"rows", rows}, {"notes", table.notes}}, 1) + "\n";
}

}  // namespace

std::string write_table(const Table& table, const std::string& format) {
  if (format == "json") return as_json(table);
  if (format == "csv") return as_csv(table);
  if (format == "html") return as_html(table);
  if (table.rows.empty()) return "no run is finished\n";
  if (format == "markdown") return as_markdown(table);
  if (format == "latex") return as_latex(table);
  return as_table(table);
}

}  // namespace rep
