// The class table of data set `synthetic`: 12 shapes x 8 textures x 8 palettes, of which the first
// 160 classes are the first 8 x 5 x 4. Every shape covers the same area, so that no class is told
// by its amount of colour.
#include "data/synthetic_classes.h"

#include <algorithm>
#include <cmath>

namespace rep {
namespace {

constexpr std::array<const char*, 12> kShapes{"disc",  "square", "triangle",  "star",
                                              "heart", "cross",  "crescent",  "flower",
                                              "arrow", "drop",   "hourglass", "bar"};
constexpr std::array<const char*, 8> kTextures{"plain",  "striped", "dotted", "checked",
                                               "ringed", "crossed", "waved",  "rayed"};
const std::array<Palette, 8> kPalettes{{{"red", {205, 48, 52}, {252, 214, 196}},
                                        {"gold", {240, 178, 40}, {128, 74, 18}},
                                        {"green", {48, 138, 84}, {206, 240, 170}},
                                        {"blue", {44, 98, 190}, {176, 218, 252}},
                                        {"violet", {134, 58, 176}, {232, 200, 250}},
                                        {"teal", {20, 152, 160}, {8, 66, 78}},
                                        {"black", {46, 44, 50}, {216, 210, 204}},
                                        {"white", {246, 244, 240}, {118, 112, 106}}}};
static_assert(kShapes.size() * kTextures.size() * 8 == kSyntheticClasses);
constexpr int64_t kFirstClasses = kFirstShapes * kFirstTextures * kFirstPalettes;

// Every combination that has a shape, texture or colour beyond the first ones.
std::vector<ClassLook> later_looks() {
  std::vector<ClassLook> looks;
  for (size_t palette = 0; palette < kPalettes.size(); ++palette) {
    for (size_t texture = 0; texture < kTextures.size(); ++texture) {
      for (size_t shape = 0; shape < kShapes.size(); ++shape) {
        const bool first =
            shape < kFirstShapes && texture < kFirstTextures && palette < kFirstPalettes;
        if (!first) looks.push_back({shape, texture, palette});
      }
    }
  }
  return looks;
}

// ---- shapes ----

cv::Point2d polar(double radius, double angle) {
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

// `corners` points at equal angles from straight up, their distances taken from `radii` in turn.
Outline spokes(int corners, const std::vector<double>& radii) {
  Outline outline;
  for (int i = 0; i < corners; ++i)
    outline.push_back(
        polar(radii[static_cast<size_t>(i) % radii.size()], 2 * kPi * i / corners - kPi / 2));
  return outline;
}

template <class Curve>
Outline sample(const Curve& curve) {  // curve(t) for t in [0, 2 pi)
  constexpr int kPoints = 64;
  Outline outline;
  for (int i = 0; i < kPoints; ++i) outline.push_back(curve(2 * kPi * i / kPoints));
  return outline;
}

Outline crescent() {
  Outline outline;
  constexpr int kPoints = 32;
  const double tip = 0.8 * kPi;  // half the angle of the outer arc
  const cv::Point2d upper = polar(1, kPi + tip), hollow_centre(0.45, 0);
  const cv::Point2d from_hollow = upper - hollow_centre;
  const double hollow = std::hypot(from_hollow.x, from_hollow.y);
  const double hollow_tip = kPi - std::abs(std::atan2(from_hollow.y, from_hollow.x));
  for (int i = 0; i <= kPoints; ++i) outline.push_back(polar(1, kPi - tip + 2 * tip * i / kPoints));
  for (int i = kPoints - 1; i > 0; --i)
    outline.push_back(hollow_centre +
                      polar(hollow, kPi - hollow_tip + 2 * hollow_tip * i / kPoints));
  return outline;
}

// Centred on its centroid and scaled to the area of a disc of radius 1 (shoelace formulas).
Outline centred(Outline outline) {
  double area = 0;
  cv::Point2d moment(0, 0);
  for (size_t i = 0; i < outline.size(); ++i) {
    const cv::Point2d &a = outline[i], &b = outline[(i + 1) % outline.size()];
    area += a.cross(b) / 2;
    moment += (a + b) * (a.cross(b) / 6);
  }
  const cv::Point2d centroid = moment * (1 / area);
  const double scale = std::sqrt(kPi / std::abs(area));
  for (cv::Point2d& point : outline) point = (point - centroid) * scale;
  return outline;
}

// ---- textures ----

double to_nearest_multiple(double x, double pitch) { return x - pitch * std::round(x / pitch); }

}  // namespace

const std::array<Palette, 8>& palettes() { return kPalettes; }

std::string ClassLook::name() const {
  return std::string(kTextures[texture]) + " " + kPalettes[palette].name + " " + kShapes[shape];
}

// A stride without a common divisor with the number of combinations (160 first, 608 later) visits
// each once, and any 20 classes in a row hold every shape, texture and colour about equally often.
ClassLook class_look(int64_t class_id) {
  constexpr int64_t kStride = 67, kLaterStride = 251;
  if (class_id >= kFirstClasses) {
    static const std::vector<ClassLook> kLater = later_looks();
    const int64_t mixed = (class_id - kFirstClasses) * kLaterStride;
    return kLater[static_cast<size_t>(mixed) % kLater.size()];
  }
  const auto mixed = static_cast<size_t>(class_id * kStride % kFirstClasses);
  return {mixed % kFirstShapes, mixed / kFirstShapes % kFirstTextures,
          mixed / (kFirstShapes * kFirstTextures)};
}

const Outline& outline_of(size_t shape) {
  static const std::array<Outline, kShapes.size()> kOutlines{
      centred(sample([](double t) { return polar(1, t); })),
      centred({{-1, -1}, {1, -1}, {1, 1}, {-1, 1}}),
      centred(spokes(3, {1})),
      centred(spokes(10, {1, 0.42})),
      centred(sample([](double t) {
        return cv::Point2d(
            16 * std::pow(std::sin(t), 3),
            -13 * std::cos(t) + 5 * std::cos(2 * t) + 2 * std::cos(3 * t) + std::cos(4 * t));
      })),
      centred({{-1, -3},
               {1, -3},
               {1, -1},
               {3, -1},
               {3, 1},
               {1, 1},
               {1, 3},
               {-1, 3},
               {-1, 1},
               {-3, 1},
               {-3, -1},
               {-1, -1}}),
      centred(crescent()),
      centred(sample([](double t) { return polar(1 + 0.24 * std::cos(6 * t), t); })),
      centred({{-3, -1}, {0.5, -1}, {0.5, -2.4}, {3.5, 0}, {0.5, 2.4}, {0.5, 1}, {-3, 1}}),
      centred(sample([](double t) {
        return cv::Point2d(std::sin(t) * std::pow(std::sin(t / 2), 1.5), -std::cos(t));
      })),
      centred({{-1, -1.4}, {1, -1.4}, {0.18, 0}, {1, 1.4}, {-1, 1.4}, {-0.18, 0}}),
      centred({{-2.2, -0.7}, {2.2, -0.7}, {2.2, 0.7}, {-2.2, 0.7}}),
  };
  return kOutlines[shape];
}

double accent_depth(size_t texture, double u, double v) {
  const auto band = [](double x, double pitch) {
    return pitch / 4 - std::abs(to_nearest_multiple(x, pitch));
  };
  switch (texture) {
    case 1:  // striped
      return band(u, 0.62);
    case 2:  // dotted
      return 0.22 - std::hypot(to_nearest_multiple(u, 0.66), to_nearest_multiple(v, 0.66));
    case 3: {  // checked
      const double across = band(u, 0.9), along = band(v, 0.9);
      return std::copysign(std::min(std::abs(across), std::abs(along)), across * along);
    }
    case 4:  // ringed
      return band(std::hypot(u, v), 0.66);
    case 5:  // crossed
      return std::max(band(u, 0.8), band(v, 0.8)) - 0.08;
    case 6:  // waved
      return band(u + 0.16 * std::sin(2 * kPi * v / 0.8), 0.62);
    case 7:  // rayed
      return band(std::atan2(v, u), 2 * kPi / 9) * std::hypot(u, v);
    default:  // plain
      return -1;
  }
}

}  // namespace rep
