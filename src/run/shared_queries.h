#pragma once

namespace rep {

struct Session;

/// Shares the queries (features of the frozen model) of images that have one view with other runs,
/// in the folder efficiency.query_cache: by the images' fingerprint, the data set's options, the
/// view, the weights' SHA-256, the model, the precision and the device with its threads. No effect
/// without a folder, or on random weights. Throws Error when the folder cannot be made.
void share_queries(Session& session);

}  // namespace rep
