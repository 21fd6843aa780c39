#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"
#include "data/decoded_cache.h"

namespace rep {

/// One image of a set that lies in files.
struct ImageFile {
  std::string path;  // below the set's root
  int64_t label = 0;
  Region crop;               // what of it counts; height 0: all
  bool first_frame = false;  // of a video
};

/// The options of such a set.
struct ImageFilesOptions : DatasetOptions {
  DecodedCacheOptions decoded_cache;
  template <class Visitor>
  void common_fields(Visitor&& visit) {
    DatasetOptions::common_fields(visit);
    visit("decoded_cache", decoded_cache);
  }
};

/// A set whose images are files below one folder, decoded when they are asked for.
class ImageFiles : public Dataset {
 public:
  /// Throws Error when a path leaves the root (it is absolute, or has a ".." in it) or a label has
  /// no name. `where` names the list in messages.
  ImageFiles(std::string root, std::vector<ImageFile> files, std::vector<std::string> class_names,
             const std::string& where);
  /// Decoded images are kept from now on, if the options name a folder. Throws Error.
  void use(const DecodedCacheOptions& options);
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  std::vector<bool> sequence_starts() const override;
  int64_t stored_bytes(int64_t index) const override;
  Image image(int64_t index) const override;
  void part(int64_t index, const Wanted& wanted, ImagePart& out) const override;
  /// Of names, labels, crops and file sizes, not of contents.
  std::string fingerprint() const override;

 private:
  void decoded(const std::string& path, const Wanted& wanted, ImagePart& out) const;

  std::string root_;
  std::vector<ImageFile> files_;
  std::vector<int64_t> labels_;
  std::vector<std::string> class_names_;
  std::unique_ptr<DecodedCache> cache_;
};

/// The set, with its cache in use.
std::unique_ptr<Dataset> with_cache(std::unique_ptr<ImageFiles> files,
                                    const ImageFilesOptions& options);

/// The image files below `folder` (JPEG, PNG, BMP, WebP by their suffix), sorted by path, as paths
/// that begin with `prefix`. Throws Error when the folder cannot be read.
std::vector<std::string> image_paths_below(const std::string& folder, const std::string& prefix);

/// The names of the folders in `folder`, sorted. Throws Error.
std::vector<std::string> folders_in(const std::string& folder);

/// A list of "path label" lines. Throws Error naming the line.
std::vector<ImageFile> read_image_list(const std::string& path, int64_t num_classes);

/// `a` cut out of `image`: `region` lies inside.
Image cut_out(const Image& image, const Region& region);

}  // namespace rep
