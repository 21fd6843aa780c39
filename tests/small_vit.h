#pragma once

#include "nn/vit.h"

namespace rep::testing {

/// The ViT of tests/fixtures/google_vit.npz.
inline VitOptions small_vit() {
  VitOptions options;
  options.image_size = 6;
  options.patch_size = 2;
  options.embed_dim = 8;
  options.depth = 2;
  options.num_heads = 2;
  return options;
}

}  // namespace rep::testing
