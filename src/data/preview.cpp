#include "data/preview.h"

#include <algorithm>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

namespace rep {
namespace {

constexpr int64_t kCellWidth = Preview::kImages * Preview::kSide;
constexpr int64_t kCellHeight = Preview::kTitle + Preview::kSide;

cv::Mat pixels_of(Image& image) {
  return {static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
          image.pixels.data()};
}

cv::Rect rectangle(int64_t x, int64_t y, int64_t width, int64_t height) {
  return {static_cast<int>(x), static_cast<int>(y), static_cast<int>(width),
          static_cast<int>(height)};
}

void write_title(cv::Mat strip, std::string text) {
  constexpr double kScale = 0.45;
  const auto width = [&] {
    return cv::getTextSize(text, cv::FONT_HERSHEY_SIMPLEX, kScale, 1, nullptr).width;
  };
  while (width() > strip.cols) text.pop_back();
  cv::putText(strip, text, {0, strip.rows - 6}, cv::FONT_HERSHEY_SIMPLEX, kScale, {0, 0, 0}, 1,
              cv::LINE_AA);
}

/// By class, the first images' positions.
std::vector<std::vector<int64_t>> first_images(const Dataset& dataset, int64_t classes) {
  std::vector<std::vector<int64_t>> first(static_cast<size_t>(classes));
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const int64_t label = dataset.labels()[static_cast<size_t>(i)];
    if (label >= classes) continue;
    auto& mine = first[static_cast<size_t>(label)];
    if (static_cast<int64_t>(mine.size()) < Preview::kImages) mine.push_back(i);
  }
  return first;
}

}  // namespace

Preview preview(const Dataset& dataset, const Transform& view) {
  const int64_t classes = std::min(dataset.num_classes(), Preview::kClasses);
  const int64_t columns = std::min(classes, Preview::kColumns);
  const int64_t rows = (classes + Preview::kColumns - 1) / Preview::kColumns;
  Preview preview;
  preview.classes_left_out = dataset.num_classes() - classes;
  preview.sheet = Image::make(Preview::kGap + rows * (kCellHeight + Preview::kGap),
                              Preview::kGap + columns * (kCellWidth + Preview::kGap));
  cv::Mat sheet = pixels_of(preview.sheet);
  sheet.setTo(cv::Scalar(255, 255, 255));

  const auto images = first_images(dataset, classes);
  for (int64_t label = 0; label < classes; ++label) {
    int64_t x = Preview::kGap + label % columns * (kCellWidth + Preview::kGap);
    const int64_t y = Preview::kGap + label / columns * (kCellHeight + Preview::kGap);
    write_title(sheet(rectangle(x, y, kCellWidth, Preview::kTitle)),
                dataset.class_names()[static_cast<size_t>(label)]);
    for (const int64_t index : images[static_cast<size_t>(label)]) {
      Image seen = view.view(dataset.image(index), Random({}));
      cv::Mat place = sheet(rectangle(x, y + Preview::kTitle, Preview::kSide, Preview::kSide));
      cv::resize(pixels_of(seen), place, place.size(), 0, 0,
                 view.size() < Preview::kSide ? cv::INTER_NEAREST : cv::INTER_AREA);
      x += Preview::kSide;
    }
  }
  return preview;
}

}  // namespace rep
