#pragma once

#include <torch/types.h>

#include <cstdint>

namespace rep {

// ConvPrompt's arithmetic (convprompt.cpp puts it together).

/// Every kernel's prompts of one layer, made once for a whole batch because no part of them depends
/// on an image. embedding [2, H, L + s - 1, d + s - 1], weight [2, H, f, s, s], bias [2, H, f] ->
/// [f, 2, L, H d]; the leading 2 are keys and values, d the width of a head, s the kernels' size.
torch::Tensor convolve(const torch::Tensor& embedding, const torch::Tensor& weight,
                       const torch::Tensor& bias);

/// Every image's own sum of them: shares [B, f], prompts [f, 2, L, D] -> [B, 2, L, D].
torch::Tensor mix(const torch::Tensor& shares, const torch::Tensor& prompts);

/// Draws rows [first, last) of keys [P, d] anew, in place: random, of unit length, orthogonal to
/// each other and to all earlier rows; later rows become zero. last <= d.
void draw_orthonormal(torch::Tensor& keys, int64_t first, int64_t last);

/// A layer's prefix is its own prompt plus that of the prompted layer before it.
class PreviousPrompt {
 public:
  /// `latest`: before a layer whose predecessor was dropped, the latest that ran stands in for it;
  /// otherwise nothing does.
  explicit PreviousPrompt(bool latest) : latest_(latest) {}
  /// Layers in the order in which they run.
  torch::Tensor add_to(const torch::Tensor& own, int64_t layer);

 private:
  bool latest_;
  int64_t layer_ = -1;
  torch::Tensor previous_;
};

}  // namespace rep
