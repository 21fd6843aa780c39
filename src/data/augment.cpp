#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "kernels/lanes.h"

namespace rep {
namespace {

constexpr double kMinRatio = 3.0 / 4, kMaxRatio = 4.0 / 3;

/// Calls `take(c, y, x, bytes, n)` for what the view shows of the image, which begins at (top,
/// left) of the whole one: n pixels of colour c in row y, from x on, mirrored where the view is
/// flipped. What is left out lies outside the image.
template <class Take>
void for_each_row_of_view(const Image& image, int64_t top, int64_t left, const View& view,
                          const Take& take) {
  const Region& window = view.resizing.window;
  const int64_t first = std::max<int64_t>(0, view.left);
  const int64_t n = window.width - std::abs(view.left);
  const int64_t x = std::max<int64_t>(0, view.flip ? view.left : -view.left);
  resize(image, top, left, view.resizing, [&](int64_t row, const uint8_t* colours, int64_t plane) {
    const int64_t y = row - view.top;
    if (y < 0 || y >= window.height) return;
    for (int64_t c = 0; c < 3; ++c) take(c, y, x, colours + c * plane + first, n);
  });
}

/// (p / 255 - mean) / std in single precision, every step rounded as torchvision's ToTensor and
/// Normalize round it. p / 255 without its division: of 1 / 255 = high + low, p * high is exact.
REP_INLINE float value(uint8_t byte, float mean, float std) {
  constexpr float high = 65793.0f / 16777216;
  constexpr float low = static_cast<float>(1.0 / 255 - 65793.0 / 16777216);
  const float p = byte;
  return (p * high + p * low - mean) / std;
}

REP_CLONES void normalise(const uint8_t* bytes, int64_t n, bool flip, float mean, float std,
                          float* out) {
  if (flip) {
    for (int64_t i = 0; i < n; ++i) out[i] = value(bytes[n - 1 - i], mean, std);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = value(bytes[i], mean, std);
  }
}

/// Writes that row of a matrix, zeros where it has no such row; returns where the next one goes.
float* write_row(const std::vector<float>& rows, int64_t row, int64_t columns, float* out) {
  const bool inside = row >= 0 && row * columns < static_cast<int64_t>(rows.size());
  return inside ? std::copy_n(rows.data() + row * columns, columns, out)
                : std::fill_n(out, columns, 0.0f);
}

/// Python's round(): halves go to the even neighbour.
int64_t rounded(double x) { return static_cast<int64_t>(std::nearbyint(x)); }

}  // namespace

Normalisation normalisation(const std::string& name) {
  if (name == "none") return {};
  if (name == "imagenet") return {{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
  if (name == "cifar") return {{0.5071f, 0.4867f, 0.4408f}, {0.2675f, 0.2565f, 0.2761f}};
  if (name == "clip") {
    return {{0.48145466f, 0.4578275f, 0.40821073f}, {0.26862954f, 0.26130258f, 0.27577711f}};
  }
  if (name == "half") return {{0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}};
  throw Error("unknown normalisation '" + name + "'; known: none, imagenet, cifar, clip, half");
}

Region random_resized_crop(int64_t height, int64_t width, double min_scale, Random& random) {
  const double area = static_cast<double>(height * width);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * random.uniform(min_scale, 1);
    const double ratio = std::exp(random.uniform(std::log(kMinRatio), std::log(kMaxRatio)));
    const int64_t w = rounded(std::sqrt(target * ratio)), h = rounded(std::sqrt(target / ratio));
    if (w < 1 || w > width || h < 1 || h > height) continue;
    const auto top = static_cast<int64_t>(random.below(static_cast<uint64_t>(height - h + 1)));
    const auto left = static_cast<int64_t>(random.below(static_cast<uint64_t>(width - w + 1)));
    return {top, left, h, w};
  }
  int64_t w = width, h = height;
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  if (ratio < kMinRatio) h = rounded(static_cast<double>(w) / kMinRatio);
  if (ratio > kMaxRatio) w = rounded(static_cast<double>(h) * kMaxRatio);
  return {(height - h) / 2, (width - w) / 2, h, w};
}

Transform::Transform(const std::string& preset, int64_t size, const Normalisation& norm, bool train)
    : size_(size), norm_(norm) {
  if (preset == "l2p") {
    random_crop_ = train;
    min_scale_ = 0.05;
    shorter_side_ = size * 256 / 224;
    filter_ = train ? Filter::kBilinear : Filter::kBicubic;
  } else if (preset == "coda") {
    random_crop_ = train;
    min_scale_ = 0.08;
    shorter_side_ = size;
  } else if (preset == "crop") {
    squash_ = true;
    padding_ = train ? size / 8 : 0;
  } else if (preset == "none") {
    squash_ = true;
    filter_ = Filter::kBicubic;
  } else {
    throw Error("unknown augmentation '" + preset + "'; known: l2p, coda, crop, none");
  }
  uint8_t bytes[256];
  std::iota(std::begin(bytes), std::end(bytes), uint8_t{0});
  for (int c = 0; c < 3; ++c) {
    rep::normalise(bytes, 256, /*flip=*/false, norm.mean[c], norm.std[c], value_[c]);
  }
}

std::string describe_test_view(const std::string& preset, int64_t size) {
  const std::string side = std::to_string(size), square = side + " x " + side;
  const auto resize = [&](int64_t shorter, const char* filter) {
    return "shorter side to " + std::to_string(shorter) + " pixels (" + filter +
           ", antialiased), then the central " + square;
  };
  if (preset == "l2p") return resize(size * 256 / 224, "bicubic");
  if (preset == "coda") return resize(size, "bilinear");
  if (preset == "crop")
    return "to " + square + " pixels (bilinear, antialiased), if it is not that";
  return "to " + square + " pixels (bicubic, antialiased)";
}

View Transform::draw(int64_t height, int64_t width, Random random) const {
  const Region whole{0, 0, height, width}, window{0, 0, size_, size_};
  View view;
  if (random_crop_) {
    const Region crop = random_resized_crop(height, width, min_scale_, random);
    view.resizing = {crop, size_, size_, window, filter_};
    view.flip = random.bernoulli(0.5);
  } else if (squash_) {
    view.resizing = {whole, size_, size_, window, filter_};
    if (padding_ > 0) {
      const auto most = static_cast<uint64_t>(2 * padding_ + 1);
      view.top = static_cast<int64_t>(random.below(most)) - padding_;
      view.left = static_cast<int64_t>(random.below(most)) - padding_;
      view.flip = random.bernoulli(0.5);
    }
  } else {
    view.resizing = resizing_to_center(height, width, shorter_side_, size_, filter_);
  }
  return view;
}

View Transform::fetch(const Dataset& dataset, int64_t index, Random random, ImagePart& part) const {
  View view;
  dataset.part(
      index,
      [&](int64_t height, int64_t width) {
        view = draw(height, width, random);
        return pixels_of(view.resizing);
      },
      part);
  return view;
}

Image Transform::view(const Image& image, Random random) const {
  Image out = Image::make(size_, size_);
  const View view = draw(image.height, image.width, random);
  for_each_row_of_view(image, 0, 0, view,
                       [&](int64_t c, int64_t y, int64_t x, const uint8_t* bytes, int64_t n) {
                         uint8_t* const target = out.pixels.data() + (y * size_ + x) * 3 + c;
                         for (int64_t i = 0; i < n; ++i)
                           target[3 * (view.flip ? n - 1 - i : i)] = bytes[i];
                       });
  return out;
}

void Transform::weigh(const View& view, int64_t height, int64_t width, float* out) const {
  thread_local std::vector<float> down, across;
  rep::weigh(view.resizing, height, width, down, across);
  for (int64_t i = 0; i < size_; ++i) {
    out = write_row(down, i + view.top, height, out);
    out = write_row(across, (view.flip ? size_ - 1 - i : i) + view.left, width, out);
  }
}

void Transform::apply(const Image& image, Random random, float* out) const {
  normalise(image, draw(image.height, image.width, random), 0, 0, out);
}

void Transform::apply(const ImagePart& part, const View& view, float* out) const {
  normalise(part.pixels, view, part.top, part.left, out);
}

void Transform::normalise(const Image& image, const View& view, int64_t top, int64_t left,
                          float* out) const {
  const int64_t plane = size_ * size_;
  if (view.top != 0 || view.left != 0) {
    for (int64_t c = 0; c < 3; ++c) std::fill_n(out + c * plane, plane, value_[c][0]);
  }
  for_each_row_of_view(image, top, left, view,
                       [&](int64_t c, int64_t y, int64_t x, const uint8_t* bytes, int64_t n) {
                         rep::normalise(bytes, n, view.flip, norm_.mean[c], norm_.std[c],
                                        out + c * plane + y * size_ + x);
                       });
}

}  // namespace rep
