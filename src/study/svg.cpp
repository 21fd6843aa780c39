#include "study/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <sstream>

namespace rep {
namespace {

// Okabe and Ito, "Color Universal Design" (2008), from the darkest on: yellow is too pale for
// lines.
constexpr std::array<const char*, 7> kColours{"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                              "#000000", "#E69F00", "#56B4E9"};
constexpr std::array<const char*, 5> kDashes{"", "7 3", "2 2", "9 3 2 3", "12 4"};
constexpr std::array<const char*, 6> kMarkers{"circle",  "square", "triangle",
                                              "diamond", "cross",  "triangle_down"};

std::string colour_of(const SeriesStyle& style) { return kColours[style.colour % kColours.size()]; }
std::string dashes_of(const SeriesStyle& style) { return kDashes[style.variant % kDashes.size()]; }
std::string marker_of(const SeriesStyle& style) { return kMarkers[style.colour % kMarkers.size()]; }

constexpr double kLeft = 58, kTop = 34, kWidth = 372, kHeight = 250;  // of the plot, in pixels
constexpr double kFullWidth = kLeft + kWidth + 14, kFullHeight = kTop + kHeight + 48;
constexpr double kFont = 13.5;

std::string number(double value, const char* format = "%.2f") {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// Of values, and onto `pixels` from `begin` on.
struct Scale {
  double low = 0, high = 1, begin = 0, pixels = 1;
  bool logarithmic = false;
  std::vector<double> ticks;

  double at(double value) const {
    const double part =
        logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return begin + pixels * part;
  }
};

/// 1, 2 or 5 times a power of ten, so that about `count` steps make `span`.
double nice_step(double span, double count) {
  const double power = std::pow(10, std::floor(std::log10(span / count)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (span / (factor * power) <= count) return factor * power;
  }
  return 10 * power;
}

Scale make_axis(double low, double high, bool logarithmic) {
  Scale axis;
  axis.logarithmic = logarithmic;
  if (logarithmic) {
    axis.low = low / 1.4;
    axis.high = high * 1.4;
    const bool few = high / low < 1e3;
    for (double power = std::pow(10, std::floor(std::log10(axis.low))); power <= axis.high;
         power *= 10) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double tick = factor * power;
        const bool inside = tick >= axis.low && tick <= axis.high;
        if (inside && (few || factor == 1.0)) axis.ticks.push_back(tick);
      }
    }
    return axis;
  }
  const double size = std::max({std::abs(low), std::abs(high), 1e-9});
  if (high - low < 1e-6 * size) {  // one value: some room around it
    low -= 0.05 * size;
    high += 0.05 * size;
  }
  const double step = nice_step(high - low, 6);
  axis.low = std::floor(low / step) * step;
  axis.high = std::ceil(high / step) * step;
  for (int i = 0; axis.low + i * step <= axis.high + step / 2; ++i) {
    axis.ticks.push_back(axis.low + i * step);
  }
  return axis;
}

std::string text_at(double x, double y, const std::string& text, const std::string& more) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\"" + more + ">" + xml_text(text) +
         "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2, const std::string& more) {
  return "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) +
         "\" y2=\"" + number(y2) + "\"" + more + "/>\n";
}

std::string marker(double x, double y, const SeriesStyle& style) {
  const std::string colour = colour_of(style), kind = marker_of(style);
  const std::string fill =
      style.variant == 0 ? " fill=\"" + colour + "\"/>\n"
                         : " fill=\"#ffffff\" stroke=\"" + colour + "\" stroke-width=\"1.4\"/>\n";
  const auto polygon = [&](const std::vector<std::array<double, 2>>& corners) {
    std::string points;
    for (const auto& [dx, dy] : corners) points += number(x + dx) + "," + number(y + dy) + " ";
    return "<polygon points=\"" + points + "\"" + fill;
  };
  if (kind == "circle") {
    return "<circle cx=\"" + number(x) + "\" cy=\"" + number(y) + "\" r=\"3.6\"" + fill;
  }
  if (kind == "square") return polygon({{-3.3, -3.3}, {3.3, -3.3}, {3.3, 3.3}, {-3.3, 3.3}});
  if (kind == "triangle") return polygon({{0, -4.4}, {4.2, 3.2}, {-4.2, 3.2}});
  if (kind == "diamond") return polygon({{0, -4.8}, {4.8, 0}, {0, 4.8}, {-4.8, 0}});
  if (kind == "triangle_down") return polygon({{0, 4.4}, {4.2, -3.2}, {-4.2, -3.2}});
  const std::string stroke =
      " stroke=\"" + colour + "\" stroke-width=\"" + (style.variant == 0 ? "2" : "1") + "\"";
  return line(x - 3.6, y - 3.6, x + 3.6, y + 3.6, stroke) +
         line(x - 3.6, y + 3.6, x + 3.6, y - 3.6, stroke);
}

std::string stroke_of(const SeriesStyle& style, double width) {
  const std::string dash = dashes_of(style);
  return " stroke=\"" + colour_of(style) + "\" stroke-width=\"" + number(width, "%.1f") + "\"" +
         (dash.empty() ? "" : " stroke-dasharray=\"" + dash + "\"");
}

std::string joined_points(const ChartSeries& series, const Scale& x, const Scale& y) {
  std::string path, above, below;
  bool deviates = false;
  for (const ChartPoint& p : series.points) {
    const auto point = [&](double value) { return number(x.at(p.x)) + "," + number(y.at(value)); };
    path += point(p.y) + " ";
    above += point(p.y + p.dy) + " ";
    below = point(p.y - p.dy) + " " + below;
    deviates = deviates || p.dy > 0;
  }
  std::string text;
  if (deviates) {
    text += "<polygon class=\"band\" points=\"" + above + below + "\" fill=\"" +
            colour_of(series.style) + "\" fill-opacity=\"0.16\"/>\n";
  }
  return text + "<polyline points=\"" + path + "\" fill=\"none\"" + stroke_of(series.style, 1.8) +
         "/>\n";
}

std::string error_bars(const ChartSeries& series, const Scale& x, const Scale& y) {
  const std::string stroke = " stroke=\"" + colour_of(series.style) + "\"";
  std::string text;
  for (const ChartPoint& p : series.points) {
    if (p.dy > 0) text += line(x.at(p.x), y.at(p.y - p.dy), x.at(p.x), y.at(p.y + p.dy), stroke);
    if (p.dx <= 0) continue;
    const double from = x.logarithmic ? std::max(p.x - p.dx, x.low) : p.x - p.dx;
    text += line(x.at(from), y.at(p.y), x.at(p.x + p.dx), y.at(p.y), stroke);
  }
  return text;
}

/// How far the points and their deviations reach, in x and y.
struct PlotExtent {
  double x_low = std::numeric_limits<double>::max(), x_high = -x_low, y_low = x_low,
         y_high = -x_low;
  double x_least = x_low;  // without deviations, for a logarithm
};

PlotExtent extent_of(const Chart& chart) {
  PlotExtent e;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& p : series.points) {
      e.x_low = std::min(e.x_low, p.x - p.dx);
      e.x_least = std::min(e.x_least, p.x);
      e.x_high = std::max(e.x_high, p.x + p.dx);
      e.y_low = std::min(e.y_low, p.y - p.dy);
      e.y_high = std::max(e.y_high, p.y + p.dy);
    }
  }
  return e;
}

std::string frame(const Chart& chart, const Scale& x, const Scale& y) {
  std::string text = text_at(kLeft, 20, chart.title, " font-size=\"15\" font-weight=\"bold\"");
  for (const double tick : x.ticks) {
    const double at = x.at(tick);
    text += line(at, kTop, at, kTop + kHeight, " stroke=\"#dddddd\"");
    text += text_at(at, kTop + kHeight + 17, number(tick, "%g"), " text-anchor=\"middle\"");
  }
  for (const double tick : y.ticks) {
    const double at = y.at(tick);
    text += line(kLeft, at, kLeft + kWidth, at, " stroke=\"#dddddd\"");
    text += text_at(kLeft - 6, at + 4, number(std::abs(tick) < 1e-9 ? 0 : tick, "%g"),
                    " text-anchor=\"end\"");
  }
  text += "<rect x=\"" + number(kLeft) + "\" y=\"" + number(kTop) + "\" width=\"" + number(kWidth) +
          "\" height=\"" + number(kHeight) + "\" fill=\"none\" stroke=\"#444444\"/>\n";
  text +=
      text_at(kLeft + kWidth / 2, kTop + kHeight + 38, chart.x_label, " text-anchor=\"middle\"");
  return text + text_at(0, 0, chart.y_label,
                        " text-anchor=\"middle\" transform=\"translate(16 " +
                            number(kTop + kHeight / 2) + ") rotate(-90)\"");
}

/// From one point towards another, short of both marks; "" where they all but touch.
std::string arrow(double x1, double y1, double x2, double y2, const SeriesStyle& style) {
  const double length = std::hypot(x2 - x1, y2 - y1), gap = 8, head = 7;
  if (length < 2 * gap + head) return "";
  const double ux = (x2 - x1) / length, uy = (y2 - y1) / length;
  const double tip_x = x2 - gap * ux, tip_y = y2 - gap * uy;
  const double back_x = tip_x - head * ux, back_y = tip_y - head * uy;
  const std::string colour = colour_of(style);
  const auto corner = [](double x, double y) { return number(x) + "," + number(y) + " "; };
  return "<g class=\"arrow\">" +
         line(x1 + gap * ux, y1 + gap * uy, back_x, back_y,
              " stroke=\"" + colour + "\" stroke-width=\"1.2\"") +
         "<polygon points=\"" + corner(tip_x, tip_y) + corner(back_x - 3 * uy, back_y + 3 * ux) +
         corner(back_x + 3 * uy, back_y - 3 * ux) + "\" fill=\"" + colour + "\"/>\n</g>\n";
}

std::string arrows_of(const Chart& chart, const Scale& x, const Scale& y) {
  std::string text;
  for (const auto& [from, to] : chart.arrows) {
    const ChartSeries &base = chart.series.at(from), &other = chart.series.at(to);
    if (base.points.empty() || other.points.empty()) continue;
    const ChartPoint &a = base.points.front(), &b = other.points.front();
    text += arrow(x.at(a.x), y.at(a.y), x.at(b.x), y.at(b.y), other.style);
  }
  return text;
}

}  // namespace

Json style_json(const SeriesStyle& style) {
  Json dashes = Json::array();
  std::istringstream words(dashes_of(style));
  for (int pixels = 0; words >> pixels;) dashes.push_back(pixels);
  return {{"colour", colour_of(style)},
          {"dashes", dashes},
          {"marker", marker_of(style)},
          {"hollow", style.variant > 0}};
}

std::string xml_text(const std::string& text) {
  // The library replaces what is not UTF-8 when it writes a text, and undoes its own escapes.
  const std::string valid = Json::parse(to_text(Json(text))).get<std::string>();
  std::string out;
  for (size_t i = 0; i < valid.size(); ++i) {
    const auto c = static_cast<unsigned char>(valid[i]);
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      out += ' ';
    } else if (valid.compare(i, 2, "\xEF\xBF") == 0 && i + 2 < valid.size() &&
               static_cast<unsigned char>(valid[i + 2]) >= 0xBE) {
      out += ' ';  // U+FFFE and U+FFFF
      i += 2;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out;
}

std::string draw(const Chart& chart) {
  const PlotExtent e = extent_of(chart);
  if (e.x_low > e.x_high) return "";
  const bool logarithmic = !chart.joined && e.x_least > 0 && e.x_high > 10 * e.x_least;
  Scale x = make_axis(logarithmic ? e.x_least : e.x_low, e.x_high, logarithmic);
  Scale y = make_axis(e.y_low, e.y_high, false);
  x.begin = kLeft, x.pixels = kWidth;
  y.begin = kTop + kHeight, y.pixels = -kHeight;

  std::string text = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " +
                     number(kFullWidth) + " " + number(kFullHeight) +
                     "\" role=\"img\" font-family=\"sans-serif\" font-size=\"" +
                     number(kFont, "%g") + "\">\n<title>" + xml_text(chart.title) + "</title>\n" +
                     frame(chart, x, y);
  for (const ChartSeries& series : chart.series) {
    if (series.points.empty()) continue;
    text += chart.joined ? joined_points(series, x, y) : error_bars(series, x, y);
    for (const ChartPoint& p : series.points) text += marker(x.at(p.x), y.at(p.y), series.style);
  }
  return text + arrows_of(chart, x, y) + "</svg>\n";
}

std::string draw_mark(const SeriesStyle& style, bool joined) {
  std::string text =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"mark\" viewBox=\"0 0 32 12\" "
      "width=\"32\" height=\"12\">";
  if (joined) text += line(1, 6, 31, 6, stroke_of(style, 1.8));
  return text + marker(16, 6, style) + "</svg>";
}

}  // namespace rep
