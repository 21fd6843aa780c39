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

std::string fingerprint_of(const Dataset& train, const Dataset& test) {
  return train.fingerprint() + "-" + test.fingerprint();
}

std::string digest_of_names(const Dataset& data) {
  return sha256_of_text(to_text(Json(data.class_names())));
}

std::string digest_of_weights(const Json& loaded) {
  return loaded.contains("sha256") ? loaded["sha256"].get<std::string>() : kRandom;
}

/// Adds the digest of a class order that is a file's path.
void add_class_order(const Config& config, Json& digests) {
  const auto* const path = std::get_if<std::string>(&config.stream.class_order);
  std::error_code none;
  if (path && std::filesystem::is_regular_file(*path, none)) {
    digests["class_order"] = sha256_of_file(*path);
  }
}

std::string digest_of_path(const std::string& weights) {
  const std::string prefix = kPretrainPrefix;
  if (weights.rfind(prefix, 0) == 0) {
    return prefix +
           std::filesystem::path(pretrained_path(read_pretraining(weights.substr(prefix.size()))))
               .stem()
               .string();
  }
  return weights == kRandom ? kRandom : digest_of_weight_file(weights);
}

}  // namespace

std::string digests_of_data(const Config& config) {
  const Splits splits = open_splits(config);
  return fingerprint_of(*splits.train, *splits.test) + " " + digest_of_names(*splits.train);
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
  Json digests = weights_digests(loaded);
  digests["dataset"] = fingerprint_of(train, test);
  digests["classes"] = digest_of_names(train);
  add_class_order(config, digests);
  return digests;
}

const std::string& InputDigests::once(const std::string& key, std::string (*digest)(const Config&),
                                      const Config& config) {
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  std::string value;
  try {
    value = digest(config);
  } catch (const Error&) {
    value = "unread " + key;
  }
  return known_.emplace(key, std::move(value)).first->second;
}

Json InputDigests::operator()(const Config& config) {
  Json digests{
      {"weights", once(
                      config.backbone.weights,
                      [](const Config& c) { return digest_of_path(c.backbone.weights); }, config)}};
  const QueryBackboneConfig& query = config.efficiency.query_backbone;
  if (!query.name.empty()) {
    digests["query_weights"] = once(
        query.weights,
        [](const Config& c) { return digest_of_path(c.efficiency.query_backbone.weights); },
        config);
  }
  // The root alone does not tell two data sets apart; the seed may draw which images there are.
  digests["dataset"] = once(to_text(config.dataset.effective) + std::to_string(config.seed) + " " +
                                Json(config.stream.validation).dump(),
                            digests_of_data, config);
  add_class_order(config, digests);
  return digests;
}

}  // namespace rep
