#include "run/shared_queries.h"

#include <torch/version.h>

#include "core/files.h"
#include "core/identity.h"
#include "data/augment.h"
#include "run/inputs.h"
#include "run/session.h"
#include "tensor/device.h"

namespace rep {

namespace {

/// One more when a feature of unchanged inputs changes: what is in the files is of older programs.
constexpr int kQueriesVersion = 1;

}  // namespace

void share_queries(Session& session) {
  const Config& config = session.config;
  const Learner& learner = session.learner;
  const std::string& folder = config.efficiency.query_cache;
  const Json weights = weights_digests(learner.inputs);
  if (folder.empty() || weights.value("query_weights", weights.at("weights")) == "random") return;
  make_directories(folder);
  const Json known = identity(config);
  Json key{{"version", kQueriesVersion},
           {"weights", weights},
           {"backbone", known.at("backbone")},
           {"query_backbone", known.at("efficiency").at("query_backbone")},
           {"dataset", known.at("dataset")},  // how pictures are read
           {"view", describe_test_view(config.train.augment, learner.backbone->image_size())},
           {"precision", config.precision},
           {"device", describe_device(learner.device)},
           {"libtorch", TORCH_VERSION}};
  key["backbone"].erase("recompute");
  // A query model of another width is projected by numbers that the seed draws.
  if (!config.efficiency.query_backbone.name.empty()) key["seed"] = config.seed;
  const auto of = [&](const char* split, const Dataset& images) {
    key["split"] = split;
    key["images"] = images.fingerprint();
    return to_text(key);
  };
  QueryModel& queries = session.learner.efficiency->queries;
  queries.share(folder, of("train", *session.train), of("test", *session.test));
}

}  // namespace rep
