#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/config.h"

namespace rep {

/// What `rep report` is asked for.
struct ReportOptions {
  std::vector<std::string> paths;     // result.json files, or folders to search for them
  std::string format = "table";       // table | markdown | latex | csv | json | html
  std::vector<std::string> group_by;  // configuration keys whose values make a row; empty: all that
                                      // differ but the seed
  std::vector<std::string> metrics;   // columns; empty: the usual ones
  std::string published;              // a file like results/published.yaml, or "" for none
  /// A data set's and a method's options at their defaults (run/setup.h), which is what an option
  /// counts as in a result from before there was such a one. Empty: those of Config alone are
  /// known.
  std::function<Config(const std::string& dataset, const std::string& method)> defaults;
};

/// A table of results (and with html, pictures of them): a row for every configuration, mean +-
/// standard deviation (n) over its seeds, the best of each column in bold. Results whose
/// configurations, data or weights differ are never averaged, unless `group_by` asks for it, and
/// then a note says over what; a note also says where a row's runs are of different builds,
/// machines or numbers of threads. Unfinished runs are listed, not counted. Throws Error for a path
/// without results, a file that is none, and an unknown metric or key.
std::string make_report(const ReportOptions& options);

}  // namespace rep
