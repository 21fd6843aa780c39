#include "nn/backbone.h"

#include "core/error.h"
#include "core/numbers.h"
#include "core/suggest.h"

namespace rep {

const BackboneFamily& family_of(const std::string& backbone) {
  std::vector<std::string> known;
  for (const auto& [name, entry] : Registry<BackboneFamily>::get().entries()) {
    for (const auto& [member, citation] : entry.value.members()) {
      if (member == backbone) return entry.value;
      known.push_back(member);
    }
  }
  throw Error("unknown backbone '" + backbone + "'" + did_you_mean(backbone, known) +
              "; known: " + join(known));
}

int64_t trainable_blocks(const BackboneConfig& config, int64_t depth) {
  if (config.trainable == "none") return 0;
  if (config.trainable == "all") return depth;
  if (const auto blocks = parse_number<uint16_t>(config.trainable)) {
    if (*blocks <= depth) return *blocks;
    throw Error("backbone.trainable: " + config.trainable + " is more than the " +
                std::to_string(depth) + " blocks of " + config.name + "; all trains them all");
  }
  throw Error("backbone.trainable: '" + config.trainable +
              "' must be none, all or a number of last blocks");
}

}  // namespace rep
