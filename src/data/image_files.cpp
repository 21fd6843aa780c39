#include "data/image_files.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/numbers.h"
#include "core/random.h"
#include "core/utf8.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

bool leaves_root(const std::string& path) {
  const fs::path p(path);
  if (path.empty() || p.is_absolute()) return true;
  return std::any_of(p.begin(), p.end(), [](const fs::path& part) { return part == ".."; });
}

}  // namespace

ImageFiles::ImageFiles(std::string root, std::vector<ImageFile> files,
                       std::vector<std::string> class_names, const std::string& where)
    : root_(std::move(root)),
      files_(std::move(files)),
      class_names_(std::move(class_names)),
      digests_(root_) {
  labels_.reserve(files_.size());
  for (const ImageFile& file : files_) {
    if (leaves_root(file.path)) {
      throw Error(where + ": the path '" + printable(file.path.substr(0, 200)) +
                  "' leads out of the data set's folder; paths are relative to it, without '..'");
    }
    if (file.label < 0 || file.label >= num_classes()) {
      throw Error(where + ": '" + printable(file.path.substr(0, 200)) + "' has the label " +
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

std::vector<int64_t> ImageFiles::domains() const {
  std::vector<int64_t> domains;
  if (domain_names_.empty()) return domains;
  for (const ImageFile& file : files_) domains.push_back(file.domain);
  return domains;
}

int64_t ImageFiles::stored_bytes(int64_t index) const {
  std::error_code unreadable;
  const auto bytes =
      fs::file_size(root_ + "/" + files_.at(static_cast<size_t>(index)).path, unreadable);
  return unreadable || bytes == 0 ? -1 : static_cast<int64_t>(bytes);
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
  if (box.height == 0) return decoded(file.path, wanted, out);
  const auto wanted_in_box = [&](int64_t height, int64_t width) {
    if (box.top < 0 || box.left < 0 || box.height < 0 || box.width <= 0 ||
        box.height > height - box.top || box.width > width - box.left) {
      throw Error(printable(absolute_path(root_ + "/" + file.path)) + " (image " +
                  std::to_string(index) + " of its list): the box " + std::to_string(box.left) +
                  ", " + std::to_string(box.top) + ", " + std::to_string(box.width) + " x " +
                  std::to_string(box.height) + " does not lie in the picture of " +
                  std::to_string(width) + " x " + std::to_string(height) +
                  "; fetch the data set again");
    }
    const Region region = wanted(box.height, box.width);
    return Region{box.top + region.top, box.left + region.left, region.height, region.width};
  };
  decoded(file.path, wanted_in_box, out);
  out.top -= box.top;
  out.left -= box.left;
}

void ImageFiles::decoded(const std::string& path, const Wanted& wanted, ImagePart& out) const {
  const std::string file = root_ + "/" + path;
  if (!cache_) return read_part(file, exif_, wanted, out);
  const auto decode = [&] {
    ImagePart whole;
    const auto all = [](int64_t height, int64_t width) { return Region{0, 0, height, width}; };
    read_part(file, exif_, all, whole);
    return std::move(whole.pixels);
  };
  const auto digest = digests_.of(path);
  const char* const how = exif_ == ExifOrientation::kApply ? " turned" : " as stored";
  cache_->part(digest ? sha256_of_text(*digest + how) : "", wanted, decode, out);
}

void ImageFiles::use(const ImageFilesOptions& options) {
  exif_ = options.exif_orientation == "apply" ? ExifOrientation::kApply : ExifOrientation::kIgnore;
  const DecodedCacheOptions& cache = options.decoded_cache;
  const int64_t limit = parse_bytes(cache.limit, "dataset.decoded_cache.limit");
  if (!cache.folder.empty()) cache_ = std::make_unique<DecodedCache>(cache.folder, limit);
}

std::unique_ptr<Dataset> with_options(std::unique_ptr<ImageFiles> files,
                                      const ImageFilesOptions& options) {
  files->use(options);
  return files;
}

std::vector<std::string> ImageFiles::notes() const {
  if (left_out_.empty()) return {};
  return {printable(absolute_path(root_)) + ": " + left_out_};
}

std::string ImageFiles::fingerprint() const {
  std::vector<int64_t> all(files_.size());
  std::iota(all.begin(), all.end(), 0);
  return fingerprint_of(all, "");
}

std::string ImageFiles::fingerprint_of(const std::vector<int64_t>& images,
                                       const std::string&) const {
  std::vector<std::string> paths;
  for (const int64_t i : images) paths.push_back(files_.at(static_cast<size_t>(i)).path);
  const auto digests = digests_.of_all(paths);
  Sha256 hash;
  const auto add = [&](const std::string& text) {  // no two lists of texts give the same bytes
    hash.update(std::to_string(text.size()) + ":" + text);
  };
  add(std::to_string(class_names_.size()));
  for (const std::string& name : class_names_) add(name);
  for (size_t k = 0; k < images.size(); ++k) {
    const ImageFile& file = files_[static_cast<size_t>(images[k])];
    add(file.path);
    add(digests[k].value_or("missing"));
    for (const int64_t number :
         {file.label, file.crop.top, file.crop.left, file.crop.height, file.crop.width}) {
      add(std::to_string(number));
    }
    if (file.first_frame) add("a video begins");
  }
  return hash.hex();
}

std::vector<std::string> share_of(std::vector<std::string> paths, double share, int64_t seed,
                                  size_t group, Split split) {
  std::vector<size_t> order(paths.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Random({static_cast<uint64_t>(seed), static_cast<uint64_t>(RandomUse::kSubset), group})
      .shuffle(order);
  const auto tested = static_cast<size_t>(share * static_cast<double>(paths.size()));
  const size_t tests = paths.size() < 2 ? 0 : std::max<size_t>(tested, 1);
  std::vector<std::string> mine;
  for (size_t i = 0; i < order.size(); ++i) {
    if ((i < tests) == (split == Split::kTest)) mine.push_back(std::move(paths[order[i]]));
  }
  std::sort(mine.begin(), mine.end());
  return mine;
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
      throw Error(printable(absolute_path(path)) + ":" + std::to_string(number) + ": '" +
                  printable(line.substr(0, 100)) + "' is not a path and a label from 0 to " +
                  std::to_string(num_classes - 1));
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
