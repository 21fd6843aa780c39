#pragma once

#include <cstdint>
#include <string>

#include "core/random.h"
#include "data/dataset.h"
#include "data/image.h"
#include "data/resample.h"

namespace rep {

/// What the network gets for a pixel value p in [0, 255]: (p / 255 - mean) / std, by channel.
struct Normalisation {
  float mean[3] = {0, 0, 0};
  float std[3] = {1, 1, 1};
};
/// none | imagenet | cifar (CIFAR-100, as Mammoth) | clip (OpenAI) | half. Throws Error for another
/// name.
Normalisation normalisation(const std::string& name);

/// torchvision's RandomResizedCrop: a region of `min_scale` to 1 of the image's area, of ratio 3/4
/// to 4/3. Draws, in this order: area and log-ratio, for at most 10 tries until they fit; then top,
/// left. When nothing fits: the largest central region of an allowed ratio, without a further draw.
Region random_resized_crop(int64_t height, int64_t width, double min_scale, Random& random);

/// What a view does with an image of a certain extent: drawn before a pixel of it is known.
struct View {
  Resizing resizing;
  int64_t top = 0, left = 0;  // of the window on the resized image; black outside of it
  bool flip = false;
};

/// From a stored image to the network's input of size x size, for training (random, a function of
/// the Random handed in) or for testing (always the same). Presets, with the source of each:
///   l2p   train RandomResizedCrop(scale .05-1, ratio 3/4-4/3, bilinear) + flip .5;
///         test Resize(256/224 size, bicubic) + CenterCrop(size)                  (l2p-pytorch)
///   coda  train RandomResizedCrop(scale .08-1) + flip .5;
///         test Resize(size, bilinear) + CenterCrop(size)                         (CODA-Prompt,
///         CIFAR)
///   crop  train: zero padding by size/8 on all sides, RandomCrop(size), flip .5; test: unchanged;
///         images of another size are resized first, bilinear        (Mammoth and others, CIFAR)
///   none  Resize to size x size, bicubic, in training and testing alike
/// A size of 224 gives exactly the published numbers; other sizes scale Resize's 256 with them.
class Transform {
 public:
  Transform(const std::string& preset, int64_t size, const Normalisation& normalisation,
            bool train);
  /// For an image of that extent. Draws the crop, then the flip (when training at all).
  View draw(int64_t height, int64_t width, Random random) const;
  /// Gets of the data set's image what the view drawn for it needs. Throws what part() throws.
  View fetch(const Dataset& dataset, int64_t index, Random random, ImagePart& part) const;
  /// Writes float [3, size, size] to `out`. `part` is what fetch() got, or more of that image.
  void apply(const ImagePart& part, const View& view, float* out) const;
  /// The view of a whole image of that extent as matrix products (resample.h), for device_images.h:
  /// row i of `out`, float [size, height + width], is what the image's rows weigh in the picture's
  /// row i, followed by what its columns weigh in column i. Black rows and columns are zeros.
  void weigh(const View& view, int64_t height, int64_t width, float* out) const;
  /// What the network gets for a byte, by channel: float [3, 256].
  const float* values() const { return value_[0]; }
  /// draw() and apply() of a whole image.
  void apply(const Image& image, Random random, float* out) const;
  /// The eight-bit picture that apply() then normalises: for previews and tests.
  Image view(const Image& image, Random random) const;
  int64_t size() const { return size_; }

 private:
  void normalise(const Image& image, const View& view, int64_t top, int64_t left, float* out) const;

  bool random_crop_ = false, squash_ = false;
  int64_t padding_ = 0;  // of preset crop
  double min_scale_ = 0;
  int64_t size_, shorter_side_ = 0;
  Filter filter_ = Filter::kBilinear;
  Normalisation norm_;
  float value_[3][256];  // what the network gets for a byte, by channel
};

/// What Transform does with a test image, in words.
std::string describe_test_view(const std::string& preset, int64_t size);

}  // namespace rep
