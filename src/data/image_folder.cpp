// Any folder with a folder of images for each class: ROOT/train/<class>/..., ROOT/test/<class>/...;
// or ROOT/<class>/... alone, of which a fixed share is taken as test images (ImageNet-R,
// PlantVillage); or two lists of "path label" lines. Tiny-ImageNet's val_annotations.txt is
// understood.
#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/utf8.h"
#include "data/image_files.h"

namespace rep {
namespace {

// `folder`: below the root, "" for itself.
std::vector<std::string> class_folders(const std::string& root, const std::string& folder,
                                       LeftOut& left_out) {
  const std::string path = folder.empty() ? root : joined(root, folder);
  std::vector<std::string> names;
  if (std::filesystem::is_directory(path)) names = folders_in(root, folder, left_out);
  if (names.empty()) {
    throw Error(printable(absolute_path(path)) +
                ": not a folder that holds a folder of images for each class; set dataset.root, "
                "and dataset.train, dataset.test or dataset.test_share to how the images lie");
  }
  return names;
}

// Tiny-ImageNet's validation images lie in one folder, with a table "file <tab> class <tab> box".
std::vector<ImageFile> annotated(const std::string& root, const std::string& folder,
                                 const std::vector<std::string>& classes) {
  const std::string table = root + "/" + folder + "/val_annotations.txt";
  std::map<std::string, int64_t> label_of;
  for (const std::string& name : classes) {
    label_of.emplace(name, static_cast<int64_t>(label_of.size()));
  }
  std::vector<ImageFile> files;
  std::istringstream lines(read_file(table, size_t{64} << 20));
  std::string line;
  for (int64_t number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line);
    std::string file, name;
    words >> file >> name;
    const auto found = label_of.find(name);
    if (found == label_of.end()) {
      throw Error(printable(absolute_path(table)) + ":" + std::to_string(number) + ": '" +
                  printable(name.substr(0, 100)) + "' is not a class of the training folder");
    }
    files.push_back({folder + "/images/" + file, found->second, {}});
  }
  return files;
}

// The images of the classes' folders below `folder`.
std::vector<ImageFile> files_of(const ImageFolderOptions& options, Split split,
                                const std::string& folder, const std::vector<std::string>& classes,
                                LeftOut& left_out) {
  std::vector<ImageFile> files;
  for (size_t label = 0; label < classes.size(); ++label) {
    const std::string below = joined(folder, classes[label]);
    if (!std::filesystem::is_directory(options.root + "/" + below)) {
      throw Error(printable(absolute_path(options.root + "/" + below)) +
                  ": not there, though the class has a folder in " +
                  printable(absolute_path(options.root + "/" + options.train)) +
                  "; both halves need every class");
    }
    auto paths = image_paths_below(options.root, below, left_out);
    if (options.test_share > 0) {
      paths = share_of(std::move(paths), options.test_share, options.split_seed, label, split);
    }
    for (std::string& path : paths) {
      files.push_back({std::move(path), static_cast<int64_t>(label), {}});
    }
  }
  return files;
}

// What the test folder holds beside the training folder's classes.
void count_unknown_classes(const ImageFolderOptions& options,
                           const std::vector<std::string>& classes, LeftOut& left_out) {
  for (const std::string& name : folders_in(options.root, options.test, left_out)) {
    if (!std::binary_search(classes.begin(), classes.end(), name)) {
      left_out.add_unknown_class(options.test + "/" + name);
    }
  }
}

std::unique_ptr<ImageFiles> open(const ImageFolderOptions& options, Split split) {
  const bool training = split == Split::kTrain, shared = options.test_share > 0;
  if (options.root.empty()) {
    throw Error("dataset.root: image_folder needs the folder of the images");
  }
  LeftOut left_out, of_training;
  const std::vector<std::string> classes = class_folders(
      options.root, shared ? "" : options.train, training || shared ? left_out : of_training);
  const std::string& list = training ? options.train_list : options.test_list;
  const std::string folder = shared ? "" : training ? options.train : options.test;
  const std::string annotations = options.root + "/" + folder + "/val_annotations.txt";
  std::string where = printable(absolute_path(options.root));
  std::vector<ImageFile> files;
  if (!list.empty()) {
    files = read_image_list(list, static_cast<int64_t>(classes.size()));
    where = printable(absolute_path(list));
  } else if (!training && !shared && std::filesystem::exists(annotations)) {
    files = annotated(options.root, folder, classes);
    where = printable(absolute_path(annotations));
  } else {
    files = files_of(options, split, folder, classes, left_out);
    if (!training && !shared) count_unknown_classes(options, classes, left_out);
  }
  auto images = std::make_unique<ImageFiles>(options.root, std::move(files), classes, where);
  images->set_left_out(left_out);
  return images;
}

const Registered<DatasetKind> kImageFolder{
    "image_folder",
    "any folder with a folder of images for each class (ImageNet-R, PlantVillage, Tiny-ImageNet)",
    {[](const Section& section, Split split, int64_t) {
       const auto options = read_section<ImageFolderOptions>(section);
       return with_options(open(options, split), options);
     },
     [](const Section& section) { return section_json<ImageFolderOptions>(section); },
     describe_fields<ImageFolderOptions>}};

}  // namespace
}  // namespace rep
