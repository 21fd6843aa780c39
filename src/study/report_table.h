#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"

namespace rep {

/// A configuration: dotted key -> its value.
using Settings = std::map<std::string, std::string>;

/// A result that was read.
struct Run {
  std::string path;
  std::string name;
  Json result;
  Settings settings;
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

/// Of one figure over a row's runs.
struct Statistic {
  double mean = 0, deviation = 0;  // the sample's, over n - 1
  int64_t n = 0;
};

/// The runs of one configuration.
struct Row {
  Settings settings;  // what its runs share, restricted to the grouping keys
  std::vector<const Run*> runs;
  std::vector<Statistic> values;    // by column
  std::vector<std::string> labels;  // by label column
};

/// A report before it is written in some format.
struct Table {
  std::vector<std::string> label_keys;
  std::vector<Column> columns;
  std::vector<Row> rows;
  std::vector<std::string> notes;
};

/// table | markdown | latex | csv | json.
std::string write_table(const Table& table, const std::string& format);

}  // namespace rep
