#include "core/what_counts.h"

namespace rep {

Json what_counts(const Config& config) {
  Json json = to_json(config);
  for (const char* key : {"name", "device", "threads", "memory_limit"}) json.erase(key);
  json["dataset"].erase("decoded_cache");
  json["train"].erase("checkpoint_seconds");
  json["eval"].erase("offline_result");
  return json;
}

}  // namespace rep
