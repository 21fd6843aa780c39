#include "study/class_pages.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <vector>

#include "study/class_results.h"
#include "study/svg.h"

namespace rep {
namespace {

constexpr size_t kMaxSquare = 30;  // rows of a matrix that can be read
constexpr size_t kPairs = 20;      // confused most
constexpr size_t kMaxBars = 200;   // classes with a line of their own; of more, the worst
constexpr size_t kMaxRuns = 60;    // of a page

std::string percent(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string matrix(const std::vector<ClassResult>& classes) {
  const bool folded = classes.size() > kMaxSquare;
  const ShareMatrix shares = folded ? by_task(classes, kMaxSquare) : by_class(classes);
  if (shares.names.empty()) return "";
  HeatMap map{folded ? "Confusion of tasks" : "Confusion of classes",
              "images of",
              folded ? "taken for classes of, % of the row" : "taken for, % of the row",
              shares.names,
              shares.shares,
              {}};
  for (size_t i = 0; i < shares.names.size(); ++i) {
    map.hover.emplace_back();
    for (size_t j = 0; j < shares.names.size(); ++j) {
      map.hover.back().push_back(shares.names[i] + " taken for " + shares.names[j] + ": " +
                                 std::to_string(shares.images[i][j]) + " images, " +
                                 percent(100 * shares.shares[i][j]) + " %");
    }
  }
  return "<div class=\"scroll\">" + draw(map) + "</div>\n";
}

std::string pairs(const std::vector<ClassResult>& classes) {
  const auto most = most_confused(classes, kPairs);
  if (most.empty()) return "<p>No image was taken for another class.</p>\n";
  std::string text =
      "<div class=\"scroll\"><table class=\"names\">\n<tr><th class=\"label\">class</th>"
      "<th class=\"label\">taken for</th><th>images</th><th>%</th></tr>\n";
  for (const ConfusedPair& pair : most) {
    const ClassResult& from = classes[pair.from];
    text += "<tr><td class=\"label\">" + xml_text(from.name) + "</td><td class=\"label\">" +
            xml_text(classes[pair.to].name) + "</td><td>" + std::to_string(pair.images) +
            "</td><td>" +
            percent(100 * static_cast<double>(pair.images) / static_cast<double>(from.images)) +
            "</td></tr>\n";
  }
  return text + "</table></div>\n";
}

std::string bar(const ClassResult& one) {
  const std::string value = percent(one.accuracy());
  return "<li><span class=\"name\">" + xml_text(one.name) +
         "</span><span class=\"bar\"><span style=\"width: " + value +
         "%\"></span></span><span class=\"value\">" + value + "</span></li>\n";
}

std::string bars(const std::vector<ClassResult>& classes) {
  std::vector<size_t> shown;
  for (size_t i = 0; i < classes.size(); ++i) {
    if (classes[i].images > 0) shown.push_back(i);
  }
  std::string note;
  if (shown.size() > kMaxBars) {
    note = "<p>The " + std::to_string(kMaxBars) + " classes with the lowest accuracy, of " +
           std::to_string(shown.size()) + ".</p>\n";
    std::stable_sort(shown.begin(), shown.end(), [&](size_t a, size_t b) {
      return classes[a].accuracy() < classes[b].accuracy();
    });
    shown.resize(kMaxBars);
    std::sort(shown.begin(), shown.end());
  }
  std::string text = note;
  int64_t task = -1;
  bool open = false;
  for (const size_t i : shown) {
    if (!open || classes[i].task != task) {
      task = classes[i].task;
      text += std::string(open ? "</ul>\n" : "") + "<h4>Task " + std::to_string(task + 1) +
              "</h4>\n<ul class=\"bars\">\n";
      open = true;
    }
    text += bar(classes[i]);
  }
  return text + (open ? "</ul>\n" : "");
}

// Means over classes and images, for the line that opens the part.
std::string headline(const Row& row, const Run& run, const std::vector<ClassResult>& classes) {
  int64_t images = 0, correct = 0;
  for (const ClassResult& one : classes) {
    images += one.images;
    correct += one.correct;
  }
  const auto seed = run.settings.find("seed");
  std::string text = row.name;
  if (seed != run.settings.end()) text += ", seed " + seed->second;
  return text + ": " + std::to_string(correct) + " of " + std::to_string(images) + " " +
         run.settings.at(kEvaluatedOn) + " images correct, " + std::to_string(classes.size()) +
         " classes";
}

}  // namespace

std::string class_pages(const Table& table) {
  std::string text;
  size_t runs = 0, beyond = 0;
  for (const Row& row : table.rows) {
    for (const Run* run : row.runs) {
      const auto classes = class_results_of(run->result);
      if (classes.empty()) continue;
      if (runs == kMaxRuns) {
        ++beyond;
        continue;
      }
      text += std::string("<details") + (runs++ == 0 ? " open=\"open\"" : "") + ">\n<summary>" +
              xml_text(headline(row, *run, classes)) + "</summary>\n<div class=\"classes\">\n" +
              "<section>\n<h3>Confusion</h3>\n" + matrix(classes) +
              "</section>\n<section>\n<h3>Confused most</h3>\n" + pairs(classes) +
              "</section>\n</div>\n<h3>Accuracy of every class, %</h3>\n" + bars(classes) +
              "</details>\n";
    }
  }
  if (text.empty()) return "";
  if (beyond > 0) {
    text += "<p>" + std::to_string(beyond) + " more runs are not shown here; report fewer.</p>\n";
  }
  return "<h2>Classes, run by run</h2>\n<p>After the last task, class-incremental: each image "
         "among "
         "all classes seen.</p>\n" +
         text;
}

}  // namespace rep
