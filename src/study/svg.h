#pragma once

#include <string>
#include <vector>

namespace rep {

/// A measurement with its deviations, 0 where there are none.
struct ChartPoint {
  double x = 0, y = 0, dx = 0, dy = 0;
};

struct ChartSeries {
  std::string label;
  std::vector<ChartPoint>
      points;  // finite; a series without any only takes its turn at the colours
};

/// A picture of measurements. Series differ in colour (Okabe and Ito's, which colour-blind readers
/// tell apart), marker and dashes, so that a print without colours can be read, too.
struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartSeries> series;
  bool joined = true;  // a line with a band of its deviations; else points with bars of them
};

/// An <svg> element, of XML whatever the texts; "" for a chart without points. The axis of x is
/// logarithmic where points that are not joined span more than a factor of ten.
std::string draw(const Chart& chart);

/// Text for XML: markup escaped, and what no XML may hold (control characters, bytes that are no
/// UTF-8) replaced.
std::string xml_text(const std::string& text);

}  // namespace rep
