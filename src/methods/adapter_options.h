#pragma once

#include <cstdint>

#include "core/fields.h"
#include "nn/adapter.h"

namespace rep {

/// Adapters beside the MLPs of a ViT (nn/adapter.h), as a method's options say.
struct AdapterOptions {
  int64_t bottleneck = 64;
  double adapter_scale = 0.1;
  double adapter_dropout = 0.1;
  template <class Visitor>
  void adapter_fields(Visitor&& visit) {
    visit("bottleneck", bottleneck, at_least(1), doc("Hidden units of an adapter.", "units"));
    visit("adapter_scale", adapter_scale, above(0), doc("Factor on an adapter's output."));
    visit("adapter_dropout", adapter_dropout, between(0, 0.99),
          doc("Dropout of an adapter's hidden units."));
  }
  AdapterSet::Options of_set() const {
    return {bottleneck, adapter_scale, adapter_dropout, /*in_series=*/false};
  }
};

}  // namespace rep
