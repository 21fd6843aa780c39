// Data set `synthetic`: images that are computed, not stored, so that everything runs without a
// download. A class is a shape, a texture and a colour ("striped red star"); what varies within a
// class is place, size, rotation, texture phase, tint, light, background, clutter and noise, all
// scaled by `difficulty`. Every shape covers the same area, so that no class is told by its amount
// of colour.
//
// An image is a function of (data_seed, split, class, index) alone: not of the run's seed, of what
// else is drawn, of the number of threads or of the slice of the class table that is in use. Every
// draw is a statement of its own: within one call's arguments the compiler chooses their order.
// Single-threaded OpenCV functions fill the polygons; OpenCV's random numbers are never used.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <opencv2/imgproc.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/hash.h"
#include "core/random.h"
#include "data/dataset.h"
#include "data/synthetic_classes.h"

namespace rep {
namespace {

struct SyntheticOptions : DatasetOptions {
  int64_t classes = 20;
  int64_t first_class = 0;
  int64_t train_per_class = 100, test_per_class = 25;
  int64_t image_size = 32;
  double difficulty = 0.5;
  int64_t data_seed = 7;

  template <class Visitor>
  void fields(Visitor&& visit) {
    common_fields(visit);
    visit("classes", classes, at_least(1), doc("Classes of the data set.", "classes"));
    visit("first_class", first_class, at_least(0),
          doc("Where in the table of 768 classes they begin."));
    visit("train_per_class", train_per_class, between(1, 100000),
          doc("Training images of each class.", "images"));
    visit("test_per_class", test_per_class, between(1, 100000),
          doc("Test images of each class.", "images"));
    visit("image_size", image_size, between(8, 512), doc("Side of an image.", "pixels"));
    visit("difficulty", difficulty, between(0, 1),
          doc("How much the images of a class vary: from 0, all the same, to 1."));
    visit("data_seed", data_seed, at_least(0),
          doc("Seed of the images, apart from the run's so that runs see the same."));
  }
};

// ---- one image ----

struct Piece {  // a shape somewhere in the image; lengths in pixels
  size_t shape;
  cv::Point2d centre;
  double radius, angle;
  Colour colour;
};

struct Scene {
  Piece piece;
  Colour accent;
  double phase_u, phase_v;     // where the texture begins
  cv::Point2d shadow;          // its offset
  Colour back[2];              // the ends of the background's gradient,
  double back_angle;           // and its direction
  double gain;                 // of the light,
  cv::Point2d light;           // and how it changes across the image
  double noise;                // standard deviation, of 255
  std::vector<Piece> clutter;  // behind the piece
};

// The same draws in the same order whatever the difficulty, which only scales them.
Scene draw_scene(const ClassLook& look, double size, double difficulty, Random& random) {
  const auto vary = [&](double by) { return difficulty * random.uniform(-by, by); };
  const auto tint = [&](const Colour& colour, double by) {
    Colour tinted = colour;
    for (int c = 0; c < 3; ++c) tinted[c] += static_cast<float>(vary(by));
    return tinted;
  };
  const Palette& palette = palettes()[look.palette];
  Scene scene;
  Piece& piece = scene.piece;
  piece.shape = look.shape;
  piece.centre = {size * (0.5 + vary(0.16)), size * (0.5 + vary(0.16))};
  piece.radius = size * (0.27 + vary(0.08));
  piece.angle = vary(kPi / 3);
  piece.colour = tint(palette.main, 36);
  scene.accent = tint(palette.accent, 36);
  scene.phase_u = vary(0.3);
  scene.phase_v = vary(0.3);
  scene.shadow.y = (0.06 + vary(0.04)) * size;
  scene.shadow.x = (0.05 + vary(0.04)) * size;
  const float shade = static_cast<float>(vary(90));
  for (Colour& back : scene.back) back = tint(Colour(186, 182, 176) + Colour::all(shade), 60);
  scene.back_angle = random.uniform(0, 2 * kPi);
  scene.gain = 1 + vary(0.25);
  scene.light = {vary(0.35), vary(0.35)};
  scene.noise = 14 * difficulty * random.uniform();
  const auto pieces = static_cast<int64_t>(6 * difficulty * random.uniform() + 0.5);
  for (int64_t i = 0; i < pieces; ++i) {
    const auto shape = static_cast<size_t>(random.below(kFirstShapes));
    cv::Point2d centre;
    centre.y = size * random.uniform();
    centre.x = size * random.uniform();
    const double radius = size * random.uniform(0.04, 0.1);
    const Palette& other = palettes()[random.below(kFirstPalettes)];
    const Colour colour = other.main * 0.45f + scene.back[i % 2] * 0.55f;
    scene.clutter.push_back({shape, centre, radius, random.uniform(0, 2 * kPi), colour});
  }
  return scene;
}

// Fills a piece; `scale` canvas pixels are one of the image's.
void fill(cv::Mat& canvas, const Piece& piece, const cv::Scalar& colour, int line, double scale) {
  constexpr int kFractionBits = 4;
  const double cosine = std::cos(piece.angle), sine = std::sin(piece.angle);
  std::vector<cv::Point> points;
  for (const cv::Point2d& p : outline_of(piece.shape)) {
    const cv::Point2d turned(cosine * p.x - sine * p.y, sine * p.x + cosine * p.y);
    // OpenCV's whole coordinates are the centres of pixels, ours their corners.
    const cv::Point2d at = (piece.centre + turned * piece.radius) * scale - cv::Point2d(0.5, 0.5);
    points.emplace_back(static_cast<int>(std::lround(at.x * (1 << kFractionBits))),
                        static_cast<int>(std::lround(at.y * (1 << kFractionBits))));
  }
  const cv::Point* polygon = points.data();
  const int count = static_cast<int>(points.size());
  cv::fillPoly(canvas, &polygon, &count, 1, colour, line, kFractionBits);
}

// How much of every pixel the piece covers, of 255: the mean of 4 x 4 samples.
cv::Mat coverage(const Piece& piece, int size) {
  constexpr int kSamples = 4;
  cv::Mat fine = cv::Mat::zeros(size * kSamples, size * kSamples, CV_8UC1), mean;
  fill(fine, piece, cv::Scalar::all(255), cv::LINE_8, kSamples);
  cv::resize(fine, mean, {size, size}, 0, 0, cv::INTER_AREA);
  return mean;
}

cv::Mat backdrop(const Scene& scene, int size) {
  cv::Mat canvas(size, size, CV_8UC3);
  const double along_x = std::cos(scene.back_angle) / size;
  const double along_y = std::sin(scene.back_angle) / size;
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x) {
      const double t = 0.5 + along_x * (x - size * 0.5) + along_y * (y - size * 0.5);
      const auto part = static_cast<float>(std::clamp(t, 0.0, 1.0));
      canvas.at<cv::Vec3b>(y, x) = scene.back[0] * (1 - part) + scene.back[1] * part;  // saturates
    }
  for (const Piece& piece : scene.clutter)
    fill(canvas, piece, cv::Scalar(piece.colour[0], piece.colour[1], piece.colour[2]), cv::LINE_AA,
         1);
  return canvas;
}

// Near enough to a Gaussian of variance 1 (Irwin-Hall: the sum of four uniform bytes), two a draw.
struct Noise {
  explicit Noise(Random r) : random(r) {}
  double next() {
    if (left == 0) {
      bits = random.next();
      left = 2;
    }
    --left;
    int sum = 0;
    for (int i = 0; i < 4; ++i, bits >>= 8) sum += static_cast<int>(bits & 255);
    return (sum - 510) / 147.8;  // the deviation of the sum: sqrt(4 (256^2 - 1) / 12)
  }
  Random random;
  uint64_t bits = 0;
  int left = 0;
};

Image paint(const Scene& scene, size_t texture, int size, Random random) {
  const Piece& piece = scene.piece;
  const cv::Mat cover = coverage(piece, size);
  const cv::Mat behind = backdrop(scene, size);
  const double cosine = std::cos(piece.angle), sine = std::sin(piece.angle);
  const auto shadow_x = static_cast<int>(std::lround(scene.shadow.x));
  const auto shadow_y = static_cast<int>(std::lround(scene.shadow.y));
  const auto covered = [&](int y, int x) {
    const bool inside = y >= 0 && y < size && x >= 0 && x < size;
    return inside ? static_cast<float>(cover.at<uint8_t>(y, x)) / 255 : 0.0f;
  };
  Noise noise(random);
  Image image = Image::make(size, size);
  uint8_t* out = image.pixels.data();
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x) {
      Colour colour = behind.at<cv::Vec3b>(y, x);
      colour *= 1 - 0.35f * covered(y - shadow_y, x - shadow_x);
      if (const float part = covered(y, x); part > 0) {
        const double dx = (x + 0.5 - piece.centre.x) / piece.radius;
        const double dy = (y + 0.5 - piece.centre.y) / piece.radius;
        const double depth = accent_depth(texture, cosine * dx + sine * dy + scene.phase_u,
                                          cosine * dy - sine * dx + scene.phase_v);
        // Half covered on the border, fully half a pixel inside.
        const auto accent = static_cast<float>(std::clamp(0.5 + depth * piece.radius, 0.0, 1.0));
        const Colour skin = piece.colour * (1 - accent) + scene.accent * accent;
        colour = colour * (1 - part) + skin * part;
      }
      const double light =
          scene.gain + (scene.light.x * (x - size * 0.5) + scene.light.y * (y - size * 0.5)) / size;
      for (int c = 0; c < 3; ++c)
        *out++ = static_cast<uint8_t>(
            std::clamp(colour[c] * light + scene.noise * noise.next() + 0.5, 0.0, 255.0));
    }
  return image;
}

// ---- the data set ----

class Synthetic : public Dataset {
 public:
  Synthetic(const SyntheticOptions& options, Split split) : options_(options), split_(split) {
    const int64_t per_class = images_per_class();
    for (int64_t c = 0; c < options_.classes; ++c) {
      names_.push_back(class_look(options_.first_class + c).name());
      labels_.insert(labels_.end(), static_cast<size_t>(per_class), c);
    }
  }

  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }

  int64_t side() const override { return options_.image_size; }
  Image image(int64_t index) const override {
    const int64_t label = labels_.at(static_cast<size_t>(index));
    const int64_t class_id = options_.first_class + label;
    Random random({static_cast<uint64_t>(options_.data_seed),
                   static_cast<uint64_t>(RandomUse::kSyntheticImage), static_cast<uint64_t>(split_),
                   static_cast<uint64_t>(class_id),
                   static_cast<uint64_t>(index - label * images_per_class())});
    const ClassLook look = class_look(class_id);
    const auto size = static_cast<int>(options_.image_size);
    const Scene scene = draw_scene(look, size, options_.difficulty, random);
    return paint(scene, look.texture, size, random);
  }

  std::string fingerprint() const override {
    // Bumped whenever the same options give other images.
    constexpr int kVersion = 1;
    Json contents = to_json(options_);
    for (const char* key : {"root", "limit_train", "limit_test"}) contents.erase(key);
    contents["split"] = split_ == Split::kTrain ? "train" : "test";
    contents["version"] = kVersion;
    return sha256_of_text(contents.dump());
  }

 private:
  int64_t images_per_class() const {
    return split_ == Split::kTrain ? options_.train_per_class : options_.test_per_class;
  }

  SyntheticOptions options_;
  Split split_;
  std::vector<std::string> names_;
  std::vector<int64_t> labels_;
};

SyntheticOptions read_options(const Section& section) {
  const auto options = read_section<SyntheticOptions>(section);
  if (options.first_class >= kSyntheticClasses ||
      options.classes > kSyntheticClasses - options.first_class)
    throw Error(section.where + ": classes = " + std::to_string(options.classes) +
                " from first_class = " + std::to_string(options.first_class) +
                " go past the table's " + std::to_string(kSyntheticClasses) +
                " classes; make one smaller");
  return options;
}

const Registered<DatasetKind> kSynthetic{
    "synthetic",
    "synthetic images, 768 classes of shape x texture x colour; no download",
    {[](const Section& section, Split split, int64_t) -> std::unique_ptr<Dataset> {
       return std::make_unique<Synthetic>(read_options(section), split);
     },
     [](const Section& section) {
       read_options(section);
       return section_json<SyntheticOptions>(section);
     },
     describe_fields<SyntheticOptions>}};

}  // namespace
}  // namespace rep
