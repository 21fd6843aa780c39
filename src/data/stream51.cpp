// Stream-51 (Roady et al., CVPR Workshops 2020): frames of videos of 51 animals and vehicles, in
// the official archive's layout: Stream-51_meta_train.json with rows
//   [class, clip, video, frame, shape, box, file],
// Stream-51_meta_test.json with [class, shape, box, file], the boxes as [right, left, bottom, top],
// and the images beside them. An image is its box, enlarged by 1.1 about its centre and cut to the
// picture, as the official loader crops it. A video begins with its frame 0.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "data/image_files.h"

namespace rep {
namespace {

constexpr int64_t kStreamClasses =
    51;  // 51 itself marks a test image of no class (novelty): left out
constexpr double kEnlarge = 1.1;

struct Stream51Options : ImageFilesOptions {
  Stream51Options() { root = "datasets/Stream-51"; }
  int64_t frame_stride = 1;
  bool crop = true;
  template <class Visitor>
  void fields(Visitor&& visit) {
    common_fields(visit);
    visit("frame_stride", frame_stride, at_least(1),
          doc("Keep one in so many frames of a video.", "frames"));
    visit("crop", crop, doc("Crop to the object's box, enlarged by 1.1; false: the whole frame."));
  }
};

class Rows {
 public:
  explicit Rows(const std::string& path) : path_(absolute_path(path)) {
    if (!std::filesystem::exists(path_)) {
      throw Error(
          path_ +
          ": not there; set dataset.root to the unpacked Stream-51 (see datasets/README.md)");
    }
    rows_ = Json::parse(read_file(path_, size_t{256} << 20), nullptr, /*allow_exceptions=*/false);
    if (!rows_.is_array()) fail(0, "is not a JSON list of rows");
  }
  size_t size() const { return rows_.size(); }
  [[noreturn]] void fail(size_t row, const std::string& why) const {
    throw Error(path_ + ": row " + std::to_string(row) + " " + why + "; fetch the data set again");
  }
  const Json& row(size_t i, size_t cells) const {
    const Json& row = rows_[i];
    if (!row.is_array() || row.size() != cells) {
      fail(i, "does not have " + std::to_string(cells) + " cells");
    }
    return row;
  }
  int64_t whole(size_t i, const Json& cell, int64_t most) const {
    if (!cell.is_number_integer() || cell.get<int64_t>() < 0 || cell.get<int64_t>() > most) {
      fail(i, "has " + cell.dump().substr(0, 40) + " where a number from 0 to " +
                  std::to_string(most) + " belongs");
    }
    return cell.get<int64_t>();
  }
  // The last two cells: [right, left, bottom, top] and the file.
  ImageFile file(size_t i, const Json& row, int64_t label, bool crop) const {
    const Json &box = row[row.size() - 2], &shape = row[row.size() - 3];
    if (!row.back().is_string()) fail(i, "ends in no file name");
    ImageFile file{row.back().get<std::string>(), label, {}, false};
    if (!crop) return file;
    constexpr int64_t kMaxEdge = 1 << 20;
    if (!box.is_array() || box.size() != 4 || !shape.is_array() || shape.size() < 2) {
      fail(i, "has no box of four numbers and no shape");
    }
    double edges[4];
    for (size_t k = 0; k < 4; ++k) {
      if (!box[k].is_number() || std::abs(box[k].get<double>()) > kMaxEdge)
        fail(i, "has a bad box");
      edges[k] = box[k].get<double>();
    }
    file.crop = enlarged(edges, whole(i, shape[0], kMaxEdge), whole(i, shape[1], kMaxEdge));
    if (file.crop.width <= 0 || file.crop.height <= 0) fail(i, "has an empty box");
    return file;
  }

 private:
  // As the official loader computes it, cut by cut.
  static Region enlarged(const double (&box)[4], int64_t height, int64_t width) {
    const double w = box[0] - box[1], h = box[2] - box[3];
    const auto x = static_cast<int64_t>(box[1] + w / 2), y = static_cast<int64_t>(box[3] + h / 2);
    const auto edge = [](int64_t centre, double length, double sign) {
      return static_cast<int64_t>(static_cast<double>(centre) + sign * kEnlarge * length / 2);
    };
    const int64_t right = std::min(edge(x, w, 1), width),
                  left = std::max<int64_t>(edge(x, w, -1), 0);
    const int64_t bottom = std::min(edge(y, h, 1), height),
                  top = std::max<int64_t>(edge(y, h, -1), 0);
    return {top, left, bottom - top, right - left};
  }

  std::string path_;
  Json rows_;
};

std::vector<std::string> class_names() {
  std::vector<std::string> names;
  for (int64_t i = 0; i < kStreamClasses; ++i) names.push_back("class" + std::to_string(i));
  return names;
}

std::unique_ptr<ImageFiles> open_train(const Stream51Options& options) {
  const Rows rows(options.root + "/Stream-51_meta_train.json");
  std::vector<ImageFile> files;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& row = rows.row(i, 7);
    const int64_t label = rows.whole(i, row[0], kStreamClasses - 1);
    const int64_t frame = rows.whole(i, row[3], 1 << 30);
    if (frame % options.frame_stride != 0) continue;
    files.push_back(rows.file(i, row, label, options.crop));
    files.back().first_frame = frame == 0;
  }
  return std::make_unique<ImageFiles>(options.root, std::move(files), class_names(),
                                      absolute_path(options.root + "/Stream-51_meta_train.json"));
}

std::unique_ptr<ImageFiles> open_test(const Stream51Options& options) {
  const Rows rows(options.root + "/Stream-51_meta_test.json");
  std::vector<ImageFile> files;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& row = rows.row(i, 4);
    const int64_t label = rows.whole(i, row[0], kStreamClasses);
    if (label < kStreamClasses) files.push_back(rows.file(i, row, label, options.crop));
  }
  return std::make_unique<ImageFiles>(options.root, std::move(files), class_names(),
                                      absolute_path(options.root + "/Stream-51_meta_test.json"));
}

const Registered<DatasetKind> kStream51{
    "stream51",
    "Roady et al., Stream-51: Streaming Classification and Novelty Detection from Videos, CVPR "
    "Workshops 2020",
    {[](const Section& section, Split split, int64_t) {
       const auto options = read_section<Stream51Options>(section);
       return with_options(split == Split::kTrain ? open_train(options) : open_test(options),
                           options);
     },
     [](const Section& section) { return section_json<Stream51Options>(section); },
     describe_fields<Stream51Options>,
     [](const Section& section, Split split) {
       const auto options = read_section<Stream51Options>(section);
       if (split == Split::kTest) return OfficialCounts{2550, 50};
       return OfficialCounts{options.frame_stride == 1 ? 150736 : int64_t{0}, 0};
     }}};

}  // namespace
}  // namespace rep
