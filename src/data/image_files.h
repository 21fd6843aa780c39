#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/content_digests.h"
#include "data/dataset.h"
#include "data/decoded_cache.h"
#include "data/image_tree.h"

namespace rep {

/// One image of a set that lies in files.
struct ImageFile {
  std::string path;  // below the set's root
  int64_t label = 0;
  Region crop;               // what of it counts; height 0: all
  bool first_frame = false;  // of a video
  int64_t domain = 0;
};

/// The options of such a set.
struct ImageFilesOptions : DatasetOptions {
  std::string exif_orientation = "apply";
  DecodedCacheOptions decoded_cache;
  template <class Visitor>
  void common_fields(Visitor&& visit) {
    DatasetOptions::common_fields(visit);
    visit("exif_orientation", exif_orientation, one_of({"apply", "ignore"}),
          doc("apply: turn images as their EXIF says; ignore: do not, as Pillow's convert."));
    visit("decoded_cache", decoded_cache, not_identity, doc("Decoded images, kept on disk."));
  }
};

/// The options of a set in folders: halves of its own below the root, one that is shared out, or
/// lists.
struct ImageFolderOptions : ImageFilesOptions {
  std::string train = "train", test = "test";
  double test_share = 0;
  int64_t split_seed = 0;
  std::string train_list, test_list;
  template <class Visitor>
  void fields(Visitor&& visit) {
    common_fields(visit);
    visit("train", train,
          doc("Folder of training images, below root: a folder for each class; of a domain_folder, "
              "one for each domain, and in it one for each class."));
    visit("test", test, doc("Folder of test images, below root."));
    visit("test_share", test_share, between(0, 0.9),
          doc("Above 0: root holds the classes (or domains) themselves, and this fraction of each "
              "class is for testing."));
    visit("split_seed", split_seed, at_least(0), doc("Seed of that choice."));
    visit("train_list", train_list, path_of_input,
          doc("File of 'path label' lines that names the training images, in place of the folder; "
              "paths are below root, and of a domain_folder begin DOMAIN/CLASS."));
    visit("test_list", test_list, path_of_input, doc("The same for the test images."));
  }
};

/// A set whose images are files below one folder, decoded when they are asked for.
class ImageFiles : public Dataset {
 public:
  /// Throws Error when a path leaves the root (it is absolute, or has a ".." in it) or a label has
  /// no name. `where` names the list in messages.
  ImageFiles(std::string root, std::vector<ImageFile> files, std::vector<std::string> class_names,
             const std::string& where);
  /// From now on images are turned, and kept when decoded, as the options say. Throws Error.
  void use(const ImageFilesOptions& options);
  /// Of which domains the files are (ImageFile::domain).
  void set_domains(std::vector<std::string> names) { domain_names_ = std::move(names); }
  /// What lay beside the files, for notes().
  void set_left_out(const LeftOut& left_out) { left_out_ = left_out.note(); }
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  std::vector<bool> sequence_starts() const override;
  std::vector<int64_t> domains() const override;
  std::vector<std::string> domain_names() const override { return domain_names_; }
  std::string path(int64_t index) const override {
    return files_.at(static_cast<size_t>(index)).path;
  }
  int64_t stored_bytes(int64_t index) const override;
  Image image(int64_t index) const override;
  void part(int64_t index, const Wanted& wanted, ImagePart& out) const override;
  std::vector<std::string> notes() const override;
  /// Of classes' names, and of paths, labels, crops, contents and the beginnings of videos; not of
  /// the root.
  std::string fingerprint() const override;
  std::string fingerprint_of(const std::vector<int64_t>& images,
                             const std::string& choice) const override;

 private:
  void decoded(const std::string& path, const Wanted& wanted, ImagePart& out) const;

  std::string root_;
  std::vector<ImageFile> files_;
  std::vector<int64_t> labels_;
  std::vector<std::string> class_names_, domain_names_;
  std::string left_out_;
  ExifOrientation exif_ = ExifOrientation::kApply;
  mutable ContentDigests digests_;
  std::unique_ptr<DecodedCache> cache_;
};

/// The set, with its options in use.
std::unique_ptr<Dataset> with_options(std::unique_ptr<ImageFiles> files,
                                      const ImageFilesOptions& options);

/// Of the sorted images of a class (or another group, by its number), where `share` of each group
/// is for testing, those of the split: a function of seed, group and how many there are. Both
/// splits get an image at least, where there are two.
std::vector<std::string> share_of(std::vector<std::string> paths, double share, int64_t seed,
                                  size_t group, Split split);

/// A list of "path label" lines. Throws Error naming the line.
std::vector<ImageFile> read_image_list(const std::string& path, int64_t num_classes);

/// `a` cut out of `image`: `region` lies inside.
Image cut_out(const Image& image, const Region& region);

}  // namespace rep
