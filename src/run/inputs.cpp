#include "run/inputs.h"

#include <filesystem>

#include "core/error.h"
#include "core/hash.h"
#include "data/dataset.h"
#include "formats/weight_file.h"
#include "run/pretrain.h"

namespace rep {
namespace {

constexpr const char* kRandom = "random";

Json digests_of(const Dataset& train, const Dataset& test) {
  return {{"dataset", train.fingerprint() + "-" + test.fingerprint()},
          {"classes", sha256_of_text(to_text(Json(train.class_names())))}};
}

Json digest_of_weights(const Json& loaded) {
  return loaded.contains("sha256") ? loaded["sha256"] : Json(kRandom);
}

/// The one list of what an identity says of inputs. `query_weights`: null without a query model.
Json put_together(const Config& config, const Json& weights, const Json& query_weights,
                  const Json& data) {
  Json digests{{"weights", weights}};
  if (!query_weights.is_null()) digests["query_weights"] = query_weights;
  digests.update(data);
  const auto* const order = std::get_if<std::string>(&config.stream.class_order);
  std::error_code none;
  if (order && !is_named_class_order(*order) && std::filesystem::is_regular_file(*order, none)) {
    digests["class_order"] = sha256_of_file(*order);
  }
  return digests;
}

std::string digest_of_path(const std::string& weights) {
  const std::string prefix = kPretrainPrefix;
  if (weights.rfind(prefix, 0) == 0) {
    return prefix + pretrained_name(read_pretraining(weights.substr(prefix.size())));
  }
  return weights == kRandom ? kRandom : digest_of_weight_file(weights);
}

}  // namespace

Json digests_of_data(const Config& config) {
  const Splits splits = open_splits(config);
  return digests_of(*splits.train, *splits.test);
}

Json weights_digests(const Json& loaded) {
  Json digests{{"weights", digest_of_weights(loaded.at("weights"))}};
  if (loaded.contains("query_weights")) {
    digests["query_weights"] = digest_of_weights(loaded["query_weights"]);
  }
  return digests;
}

Json input_digests(const Config& config, const Json& loaded, const Dataset& train,
                   const Dataset& test) {
  const Json query =
      loaded.contains("query_weights") ? digest_of_weights(loaded["query_weights"]) : Json();
  return put_together(config, digest_of_weights(loaded.at("weights")), query,
                      digests_of(train, test));
}

const Json& InputDigests::once(const std::string& key, const std::function<Json()>& digest) {
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  Json value;
  try {
    value = digest();
  } catch (const Error&) {
    value = "unread " + key;
  }
  return known_.emplace(key, std::move(value)).first->second;
}

Json InputDigests::operator()(const Config& config) {
  const auto of_weights = [&](const std::string& path) {
    return once("weights " + path, [&] { return Json(digest_of_path(path)); });
  };
  const QueryBackboneConfig& query = config.efficiency.query_backbone;
  // The root alone does not tell two data sets apart; the seed may draw which images there are.
  Json data = once("dataset " + to_text(config.dataset.effective) + std::to_string(config.seed) +
                       " " + Json(config.stream.validation).dump(),
                   [&] { return digests_of_data(config); });
  if (!data.is_object()) data = {{"dataset", data}};
  return put_together(config, of_weights(config.backbone.weights),
                      query.name.empty() ? Json() : of_weights(query.weights), data);
}

}  // namespace rep
