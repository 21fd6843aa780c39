#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "data/stream.h"

namespace rep {

/// How often a class's test images were taken for each class, by labels of the stream.
class Confusion {
 public:
  /// `predicted`: the label that each of the task's test images was taken for.
  void add(const Task& task, const std::vector<int64_t>& predicted);
  /// As result.json has it (docs/results.md): after the task of index `after`, a line for each
  /// label below `seen`. `names`: of the data set's classes.
  Json to_json(const Stream& stream, const std::vector<std::string>& names, int64_t after,
               int64_t seen) const;

 private:
  std::map<int64_t, std::map<int64_t, int64_t>> images_;  // label -> predicted -> count
};

}  // namespace rep
