#pragma once

#include <string>
#include <vector>

namespace rep {

/// What `rep report` is asked for.
struct ReportOptions {
  std::vector<std::string> paths;     // result.json files, or folders to search for them
  std::string format = "table";       // table | markdown | latex | csv | json | html
  std::vector<std::string> group_by;  // configuration keys whose values make a row; empty: all that
                                      // differ but the seed
  std::vector<std::string> metrics;   // columns; empty: the usual ones
  std::string published;              // a file like results/published.yaml, or "" for none
};

/// A table of results (and with html, pictures of them): a row for every configuration, mean +-
/// standard deviation (n) over its seeds, the best of each column in bold. Results whose
/// configurations, data or weights differ are never averaged, unless `group_by` asks for it, and
/// then a note says over what. Unfinished runs are listed, not counted. Throws Error for a path
/// without results, a file that is none, and an unknown metric or key.
std::string make_report(const ReportOptions& options);

}  // namespace rep
