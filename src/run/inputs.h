#pragma once

#include <functional>
#include <map>
#include <string>

#include "core/config.h"
#include "core/json.h"

namespace rep {

class Dataset;

/// What an experiment's paths led to, for identity(): {"weights": SHA-256 or "random",
/// "query_weights" where there is a query model, "dataset": the fingerprints of both splits,
/// "classes": the SHA-256 of their names, "class_order" where that is a file}. `loaded` is
/// Learner::inputs.
Json input_digests(const Config& config, const Json& loaded, const Dataset& train,
                   const Dataset& test);

/// The part of it that weights have: all that can be said where the data is not there.
Json weights_digests(const Json& loaded);

/// {"dataset", "classes"} of the same.
Json digests_of_data(const Config& config);

/// The same before a run begins, for a sweep's keys: files are hashed and data sets opened, each
/// once. Weights that are pre-trained when they are needed count by what they are trained from (the
/// run's own identity has the SHA-256 of the file that comes of it); and what cannot be read (the
/// run says why) counts by its path.
class InputDigests {
 public:
  Json operator()(const Config& config);

 private:
  const Json& once(const std::string& key, const std::function<Json()>& digest);
  std::map<std::string, Json> known_;
};

}  // namespace rep
