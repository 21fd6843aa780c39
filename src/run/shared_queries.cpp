#include "run/shared_queries.h"

#include <torch/version.h>

#include "core/files.h"
#include "data/augment.h"
#include "run/session.h"
#include "tensor/device.h"

namespace rep {

namespace {

/// One more when a feature of unchanged inputs changes: what is in the files is of older programs.
constexpr int kQueriesVersion = 1;

}  // namespace

std::string share_queries(Session& session, const Json& run_identity) {
  const Config& config = session.config;
  const std::string& folder = config.efficiency.query_cache;
  if (folder.empty()) return "";
  const Json& inputs = run_identity.at("inputs");
  if (inputs.value("query_weights", inputs.at("weights")) == "random") {
    return "efficiency.query_cache: not used, since the weights are random";
  }
  make_directories(folder);
  Json key{
      {"version", kQueriesVersion},
      {"weights", inputs.value("query_weights", inputs.at("weights"))},
      {"images", inputs.at("dataset")},
      {"dataset", run_identity.at("dataset")},  // how pictures are read
      {"backbone", run_identity.at("backbone")},
      {"query_backbone", run_identity.at("efficiency").at("query_backbone")},
      {"view", describe_test_view(config.train.augment, session.learner.backbone->image_size())},
      {"precision", config.precision},
      {"device", describe_device(session.learner.device)},
      {"libtorch", TORCH_VERSION}};
  key["backbone"].erase("recompute");
  // A query model of another width is projected by numbers that the seed draws.
  if (!config.efficiency.query_backbone.name.empty()) key["seed"] = config.seed;
  const auto of = [&](const char* split) {
    key["split"] = split;
    return to_text(key);
  };
  session.learner.efficiency->queries.share(folder, of("train"), of("test"));
  return "";
}

}  // namespace rep
