// Squares of cells whose depth of colour is a share.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "study/svg.h"

namespace rep {
namespace {

constexpr double kCell = 26;         // pixels, of a cell
constexpr size_t kMaxName = 18;      // characters of a name beside the cells
constexpr double kCharacter = 7.2;   // pixels, of a character at the font's size
constexpr size_t kMaxNumbered = 16;  // rows up to which cells have numbers

std::string pixels(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string shortened(const std::string& name) {
  size_t characters = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if ((static_cast<unsigned char>(name[i]) & 0xC0) == 0x80) continue;  // within a character
    if (++characters > kMaxName) return name.substr(0, i) + "…";
  }
  return name;
}

std::string label_at(double x, double y, const std::string& text, const std::string& more) {
  return "<text x=\"" + pixels(x) + "\" y=\"" + pixels(y) + "\"" + more + ">" + xml_text(text) +
         "</text>\n";
}

std::string cell(double x, double y, double share, const std::string& hover, bool numbered) {
  std::string text = "<g><title>" + xml_text(hover) + "</title>\n<rect x=\"" + pixels(x) +
                     "\" y=\"" + pixels(y) + "\" width=\"" + pixels(kCell - 1) + "\" height=\"" +
                     pixels(kCell - 1) + "\" fill=\"#0072B2\" fill-opacity=\"" +
                     pixels(std::max(0.04, share)) + "\"/>\n";
  const long percent = std::lround(100 * share);
  if (numbered && percent > 0) {
    text += label_at(x + kCell / 2, y + kCell / 2 + 3.5, std::to_string(percent),
                     std::string(" text-anchor=\"middle\" font-size=\"10.5\"") +
                         (share > 0.55 ? " fill=\"#ffffff\" class=\"on-dark\"" : ""));
  }
  return text + "</g>\n";
}

}  // namespace

std::string draw(const HeatMap& map) {
  const size_t rows = map.shares.size();
  if (rows == 0) return "";
  size_t longest = 4;
  for (const std::string& name : map.names) longest = std::max(longest, shortened(name).size());
  const double margin = kCharacter * static_cast<double>(std::min(longest, kMaxName)) + 34;
  const double top = margin + 22, side = kCell * static_cast<double>(rows);
  const double width = margin + side + 4, height = top + side + 4;
  std::string text = "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"heat\" viewBox=\"0 0 " +
                     pixels(width) + " " + pixels(height) + "\" style=\"width: " + pixels(width) +
                     "px\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\">\n<title>" +
                     xml_text(map.title) + "</title>\n";
  text += label_at(margin, 14, map.x_label, " font-style=\"italic\"");
  text += label_at(0, 0, map.y_label,
                   " font-style=\"italic\" text-anchor=\"middle\" transform=\"translate(12 " +
                       pixels(top + side / 2) + ") rotate(-90)\"");
  for (size_t i = 0; i < rows; ++i) {
    const double at = kCell * static_cast<double>(i) + kCell / 2;
    text += label_at(margin - 6, top + at + 4, shortened(map.names[i]), " text-anchor=\"end\"");
    text += label_at(0, 0, shortened(map.names[i]),
                     " transform=\"translate(" + pixels(margin + at + 4) + " " + pixels(top - 6) +
                         ") rotate(-90)\"");
    for (size_t j = 0; j < rows; ++j) {
      text += cell(margin + kCell * static_cast<double>(j), top + kCell * static_cast<double>(i),
                   map.shares[i][j], map.hover[i][j], rows <= kMaxNumbered);
    }
  }
  return text + "</svg>\n";
}

}  // namespace rep
