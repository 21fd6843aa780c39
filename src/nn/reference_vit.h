#pragma once

#include "nn/vit.h"

namespace rep {

/// The ViT's operations one by one, as the formulas stand and as the published PyTorch code of the
/// methods has them: attention's weights are made, and kept for the gradient, and every block makes
/// every token. What the kernels are tested against, and what `rep bench` divides by and compares
/// with; no run uses them.
extern const VitOperations kReferenceOperations;

/// A plain pass by these operations, without gradients, whatever `backbone` computes with
/// otherwise: [B, 3, S, S] -> [B, D]. A backbone that is no ViT has no other operations than its
/// own.
torch::Tensor reference_features(Backbone& backbone, const torch::Tensor& images);

}  // namespace rep
