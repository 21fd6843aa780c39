#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"

namespace rep {

/// A measurement with its deviations, 0 where there are none.
struct ChartPoint {
  double x = 0, y = 0, dx = 0, dy = 0;
};

/// What sets a series apart. Those of one colour (Okabe and Ito's, which colour-blind readers tell
/// apart) have one marker: a method, solid and full, and its variants with REP, dashed and hollow.
struct SeriesStyle {
  size_t colour = 0;   // counts on beyond the colours there are
  size_t variant = 0;  // 0: solid and full
};
/// The same for other drawers: {"colour": "#0072B2", "dashes": [7, 3], "marker": "circle",
/// "hollow": true}, dashes in pixels, drawn and left out in turn.
Json style_json(const SeriesStyle& style);

struct ChartSeries {
  std::string label;
  std::vector<ChartPoint> points;  // finite
  SeriesStyle style{};
};

/// A picture of measurements. Its legend is not part of it: draw_mark() gives the marks.
struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartSeries> series;
  bool joined = true;  // a line with a band of its deviations; else points with bars of them
  std::vector<std::pair<size_t, size_t>>
      arrows{};  // from the first point of one series to another's
};

/// An <svg> element, of XML whatever the texts; "" for a chart without points. The axis of x is
/// logarithmic where points that are not joined span more than a factor of ten.
std::string draw(const Chart& chart);

/// A series' line and marker, as an <svg> element of a line's height.
std::string draw_mark(const SeriesStyle& style, bool joined);

/// Shares in [0, 1] as a square of cells, darker for more.
struct HeatMap {
  std::string title, y_label, x_label;
  std::vector<std::string> names;               // of rows and columns alike
  std::vector<std::vector<double>> shares;      // [row][column]
  std::vector<std::vector<std::string>> hover;  // what a browser shows under the pointer
};

/// An <svg> element at least so wide that names can be read.
std::string draw(const HeatMap& map);

/// Text for XML: markup escaped, and what no XML may hold (control characters, bytes that are no
/// UTF-8) replaced.
std::string xml_text(const std::string& text);

}  // namespace rep
