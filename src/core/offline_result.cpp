#include "core/offline_result.h"

#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/json_file.h"
#include "core/metrics.h"

namespace rep {

std::vector<double> read_offline_result(const std::string& path,
                                        const std::vector<std::vector<int64_t>>& classes,
                                        const std::string& tested) {
  const auto fail = [&](const std::string& why) {
    throw Error("eval.offline_result: " + absolute_path(path) + " " + why +
                "; give the result.json of a finished run (method joint) on the same stream");
  };
  const Json json = read_json_file(path);
  const size_t tasks = classes.size();
  AccuracyMatrix matrix;
  try {  // the file's shape is whatever it is: at() and get() throw where it is another
    if (!json.at("complete").get<bool>()) fail("is of an unfinished run");
    if (json.value("evaluated_on", "test") != tested)
      fail("was not tested on " + tested + " images");
    if (json.at("tasks").size() != tasks) fail("is of another number of tasks");
    const Json& rows = json.at("accuracy").at("class_incremental");
    for (size_t t = 0; t < tasks; ++t) {
      const Json& task = json.at("tasks").at(t);
      if (task.at("classes") != Json(classes[t])) {
        fail("has other classes in task " + std::to_string(t + 1));
      }
      matrix.n.push_back(task.at("test_images").get<int64_t>());
      matrix.a.emplace_back();
      for (size_t i = 0; i <= t; ++i) {
        const Json& cell = rows.at(t).at(i);
        matrix.a[t].push_back(cell.is_null() ? std::nan("") : cell.get<double>());
      }
    }
  } catch (const Json::exception&) {
    fail("is not a result");
  }
  const std::vector<double> accuracies = offline_accuracies(matrix);
  for (const double accuracy : accuracies) {
    if (!(accuracy > 0 && accuracy <= 100)) fail("has an accuracy that nothing can be divided by");
  }
  return accuracies;
}

}  // namespace rep
