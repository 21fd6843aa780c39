#pragma once

#include <string>

#include "core/json.h"

namespace rep {

struct Session;

/// Shares the queries (features of the frozen model) of images that have one view with other runs,
/// in the folder efficiency.query_cache, by what they follow from: the images' fingerprint and the
/// weights' SHA-256 (of the run's identity), the data set's options, the view, the model, the
/// precision and the device with its threads. Why not, where a folder is given that is not used;
/// else "". Throws Error when the folder cannot be made.
std::string share_queries(Session& session, const Json& run_identity);

}  // namespace rep
