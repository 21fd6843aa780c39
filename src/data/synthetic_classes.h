#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

// What the classes of data set `synthetic` look like.
namespace rep {

constexpr double kPi = 3.14159265358979323846;

using Colour = cv::Vec3f;                  // red, green, blue, 0 to 255
using Outline = std::vector<cv::Point2d>;  // a closed polygon around the origin, y downwards

constexpr int64_t kSyntheticClasses = 12 * 8 * 8;  // shapes, textures, palettes
// The table began with these alone; its first classes and all clutter still do.
constexpr size_t kFirstShapes = 8, kFirstTextures = 5, kFirstPalettes = 4;

struct Palette {
  const char* name;
  Colour main, accent;
};
const std::array<Palette, 8>& palettes();

struct ClassLook {
  size_t shape, texture, palette;
  std::string name() const;  // "striped red star"
};
/// Of a class from 0 to kSyntheticClasses - 1.
ClassLook class_look(int64_t class_id);

/// Centred on its centroid, of the area of a disc of radius 1.
const Outline& outline_of(size_t shape);

/// How far (u, v) lies inside the accent colour, negative outside, in the shape's own coordinates
/// (a disc has radius 1).
double accent_depth(size_t texture, double u, double v);

}  // namespace rep
