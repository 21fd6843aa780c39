#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/augment.h"
#include "data/dataset.h"
#include "nn/vit.h"
#include "nn/weights.h"

namespace rep {

/// load_config, then the options of `dataset` and `method` read by whoever registered them, and the
/// checks that need more than one field. A configuration that passes fails later only for its data.
/// Throws Error.
Config read_experiment(const std::string& path, const std::vector<std::string>& overrides = {});
/// The second half alone, for a Config that was not read from a file.
void resolve_sections(Config& config);

/// A backbone of that name with its weights, frozen but for what `config.trainable` says, in fp32.
/// `inputs` receives {"path","sha256","bytes"}.
std::shared_ptr<Backbone> make_backbone(const BackboneConfig& config, Json* inputs);
VisionTransformer make_vit(const BackboneConfig& config, Json* inputs);

}  // namespace rep
