#include "data/image_files.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/numbers.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

bool leaves_root(const std::string& path) {
  const fs::path p(path);
  if (path.empty() || p.is_absolute()) return true;
  return std::any_of(p.begin(), p.end(), [](const fs::path& part) { return part == ".."; });
}

bool is_image(const fs::path& path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto known = {".jpg", ".jpeg", ".png", ".bmp", ".webp"};
  return std::find(known.begin(), known.end(), suffix) != known.end();
}

}  // namespace

ImageFiles::ImageFiles(std::string root, std::vector<ImageFile> files,
                       std::vector<std::string> class_names, const std::string& where)
    : root_(std::move(root)), files_(std::move(files)), class_names_(std::move(class_names)) {
  labels_.reserve(files_.size());
  for (const ImageFile& file : files_) {
    if (leaves_root(file.path)) {
      throw Error(where + ": the path '" + file.path.substr(0, 200) +
                  "' leads out of the data set's folder; paths are relative to it, without '..'");
    }
    if (file.label < 0 || file.label >= num_classes()) {
      throw Error(where + ": '" + file.path.substr(0, 200) + "' has the label " +
                  std::to_string(file.label) + ", but there are " + std::to_string(num_classes()) +
                  " classes");
    }
    labels_.push_back(file.label);
  }
}

std::vector<bool> ImageFiles::sequence_starts() const {
  std::vector<bool> starts;
  for (const ImageFile& file : files_) starts.push_back(file.first_frame);
  const bool any = std::find(starts.begin(), starts.end(), true) != starts.end();
  return any ? starts : std::vector<bool>{};
}

int64_t ImageFiles::stored_bytes(int64_t index) const {
  std::error_code unreadable;
  const auto bytes =
      fs::file_size(root_ + "/" + files_.at(static_cast<size_t>(index)).path, unreadable);
  return unreadable ? -1 : static_cast<int64_t>(bytes);
}

Image ImageFiles::image(int64_t index) const {
  ImagePart got;
  Region all;
  part(
      index,
      [&](int64_t height, int64_t width) {
        return all = {0, 0, height, width};
      },
      got);
  const bool exact = got.pixels.height == all.height && got.pixels.width == all.width;
  if (exact) return std::move(got.pixels);
  return cut_out(got.pixels, {-got.top, -got.left, all.height, all.width});
}

void ImageFiles::part(int64_t index, const Wanted& wanted, ImagePart& out) const {
  const ImageFile& file = files_.at(static_cast<size_t>(index));
  const Region& box = file.crop;
  const std::string path = root_ + "/" + file.path;
  if (box.height == 0) return decoded(path, wanted, out);
  const auto wanted_in_box = [&](int64_t height, int64_t width) {
    if (box.top < 0 || box.left < 0 || box.height < 0 || box.width <= 0 ||
        box.height > height - box.top || box.width > width - box.left) {
      throw Error(path + " (image " + std::to_string(index) + " of its list): the box " +
                  std::to_string(box.left) + ", " + std::to_string(box.top) + ", " +
                  std::to_string(box.width) + " x " + std::to_string(box.height) +
                  " does not lie in the picture of " + std::to_string(width) + " x " +
                  std::to_string(height) + "; fetch the data set again");
    }
    const Region region = wanted(box.height, box.width);
    return Region{box.top + region.top, box.left + region.left, region.height, region.width};
  };
  decoded(path, wanted_in_box, out);
  out.top -= box.top;
  out.left -= box.left;
}

void ImageFiles::decoded(const std::string& path, const Wanted& wanted, ImagePart& out) const {
  if (!cache_) return read_part(path, wanted, out);
  cache_->part(
      path, wanted, [&] { return read_image(path); }, out);
}

void ImageFiles::use(const DecodedCacheOptions& options) {
  const int64_t limit = parse_bytes(options.limit, "dataset.decoded_cache.limit");
  if (!options.folder.empty()) cache_ = std::make_unique<DecodedCache>(options.folder, limit);
}

std::unique_ptr<Dataset> with_cache(std::unique_ptr<ImageFiles> files,
                                    const ImageFilesOptions& options) {
  files->use(options.decoded_cache);
  return files;
}

std::string ImageFiles::fingerprint() const {
  Sha256 hash;
  const auto add = [&](const std::string& text) { hash.update(text.data(), text.size()); };
  for (const std::string& name : class_names_) add(name + "\n");
  for (int64_t i = 0; i < size(); ++i) {
    const ImageFile& file = files_[static_cast<size_t>(i)];
    const int64_t bytes = stored_bytes(i);
    add(file.path + " " + std::to_string(file.label) + " " +
        (bytes < 0 ? "missing" : std::to_string(bytes)) + " " + std::to_string(file.crop.top) +
        " " + std::to_string(file.crop.left) + " " + std::to_string(file.crop.height) + " " +
        std::to_string(file.crop.width) + "\n");
  }
  return hash.hex();
}

std::vector<std::string> image_paths_below(const std::string& folder, const std::string& prefix) {
  std::vector<std::string> paths;
  try {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file() || !is_image(entry.path())) continue;
      paths.push_back(prefix + fs::relative(entry.path(), folder).generic_string());
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(folder + ": cannot be read: " + error.code().message());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<std::string> folders_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  if (failed) throw Error(folder + ": cannot be read: " + failed.message());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<ImageFile> read_image_list(const std::string& path, int64_t num_classes) {
  std::vector<ImageFile> files;
  std::istringstream lines(read_file(path, size_t{256} << 20));
  std::string line;
  for (int64_t number = 1; std::getline(lines, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    const size_t space = line.rfind(' ');
    ImageFile file;
    const auto label = space == std::string::npos
                           ? std::nullopt
                           : parse_number<int64_t>(std::string_view(line).substr(space + 1));
    if (space == 0 || !label || *label < 0 || *label >= num_classes) {
      throw Error(path + ":" + std::to_string(number) + ": '" + line.substr(0, 100) +
                  "' is not a path and a label from 0 to " + std::to_string(num_classes - 1));
    }
    file.label = *label;
    file.path = line.substr(0, space);
    files.push_back(std::move(file));
  }
  return files;
}

Image cut_out(const Image& image, const Region& region) {
  Image out = Image::make(region.height, region.width);
  for (int64_t y = 0; y < region.height; ++y) {
    const auto* row = image.pixels.data() + ((region.top + y) * image.width + region.left) * 3;
    std::copy_n(row, region.width * 3, out.pixels.data() + y * region.width * 3);
  }
  return out;
}

}  // namespace rep
