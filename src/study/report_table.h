#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "study/svg.h"

namespace rep {

/// A configuration: dotted key -> its value.
using Settings = std::map<std::string, std::string>;

/// A result that was read.
struct Run {
  std::string path;
  std::string name;
  Json result;
  Settings settings;  // the whole configuration, and what is in `identity` besides
  Settings identity;  // what makes it the run it is, but for the seed
  bool complete = false;
};

/// What a report shows of each row.
struct Column {
  std::string key, header, pointer;
  double scale = 1;  // to the header's unit
  int digits = 2;
  int better = 0;          // 1: more is, -1: less is
  bool deviation = false;  // shown with its standard deviation
};

/// A column by its short name, or a metric of a result by its own. Throws Error for neither.
Column column_of(const std::string& key, const Json& metrics);

/// What a result says in a column, in the header's unit.
std::optional<double> value_of(const Column& column, const Json& result);

/// Of one figure over a row's runs.
struct Statistic {
  double mean = 0, deviation = 0;  // the sample's, over n - 1
  int64_t n = 0;
};

Statistic statistic(const std::vector<double>& values);

/// The runs of one configuration.
struct Row {
  Settings settings;  // what its runs share, restricted to the grouping keys
  std::vector<const Run*> runs;
  std::vector<Statistic> values;    // by column
  std::vector<std::string> labels;  // by label column
  std::string name;                 // the same in words, and for REP's rows "+ REP"
  SeriesStyle style{};              // in pictures
  std::optional<size_t> base;       // the row that has the same settings without REP
};

/// A key beside those of the identity: "test" or "validation", the images that accuracies are of.
constexpr const char* kEvaluatedOn = "evaluated_on";
inline bool is_of_validation(const Row& row) {
  return row.runs.front()->settings.at(kEvaluatedOn) == "validation";
}

/// A report before it is written in some format.
struct Table {
  std::vector<std::string> label_keys;
  std::vector<std::string> differing;  // all keys whose values differ between runs
  std::vector<Column> columns;
  std::vector<Row> rows;
  std::vector<std::string> notes;
};

/// Whether these settings merge tokens or drop blocks as REP does.
bool uses_rep(const Settings& settings);

/// Sorts the rows, names them, and gives those that differ in nothing but REP one colour and their
/// base: by what makes the runs what they are, but for `efficiency`.
void arrange_families(Table& table);

/// A configuration key in a reader's words: "lr" of train.optimizer.lr; "" for keys whose values
/// speak for themselves (method.name).
std::string word_of(const std::string& key);

/// What surrounds the best of a column, and stands before a deviation.
struct Style {
  std::string plus_minus, bold_before, bold_after;
};

/// The headers, then a line a row, as text.
std::vector<std::vector<std::string>> cells(const Table& table, const Style& style);

/// A page by itself: the table, its notes, and pictures of accuracy and forgetting over tasks, of
/// accuracy against costs, and of tokens and blocks in a training step. It is XML, too, whatever
/// the texts.
std::string as_html(const Table& table);

/// table | markdown | latex | csv | json | html.
std::string write_table(const Table& table, const std::string& format);

}  // namespace rep
