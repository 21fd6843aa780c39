#pragma once

namespace rep {

struct Session;

/// Shares the queries (features of the frozen model) of images that have one view with other runs,
/// in the folder efficiency.query_cache: by the images' fingerprint, the view, the weights'
/// SHA-256, the model and the arithmetic. No effect without a folder, or on random weights.
void share_queries(Session& session);

}  // namespace rep
