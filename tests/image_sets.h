#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/error.h"
#include "data/dataset.h"
#include "tests/run_command.h"

// What the tests of data sets in files share: pictures on disk, and the set opened.
namespace rep {

inline Image picture(int64_t height, int64_t width, uint8_t seed) {
  Image image = Image::make(height, width);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] = static_cast<uint8_t>((i * 7 + seed * 31) % 251);
  }
  return image;
}

inline void put(const std::string& path, const Image& image = picture(6, 5, 1)) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  write_png(path, image);
}

inline Section section(const std::string& yaml) {
  Section section{"", YAML::Load(yaml), "test", {}};
  section.name = section.node["name"].as<std::string>();
  return section;
}

inline std::unique_ptr<Dataset> open(const std::string& yaml, Split split) {
  return open_dataset(section(yaml), split, 42);
}

inline std::string message_of(const std::string& yaml, Split split) {
  try {
    const auto data = open(yaml, split);
    for (int64_t i = 0; i < data->size(); ++i) data->image(i);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace rep
