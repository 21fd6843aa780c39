#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace rep {

/// What is found beside the images and is not read: counted, so that nothing is left out in
/// silence.
class LeftOut {
 public:
  /// By its ending. `path`: below the data set's root, for the example.
  void add_file(const std::string& path);
  /// An image that lies in no class's folder.
  void add_stray(const std::string& path) { add("images outside of the classes' folders", path); }
  /// Hidden, or what an operating system or a program keeps for itself.
  void add_hidden(const std::string& path) { add("hidden files and folders", path); }
  /// A link to a folder that is read already, or that holds this one.
  void add_repeated(const std::string& path) { add("links to folders that are read anyway", path); }
  /// A class of the test images that the training images do not have.
  void add_unknown_class(const std::string& path) {
    add("folders that are not classes of the training images", path);
  }
  /// "", or "not read: .gif files: 6 (train/ant/0.gif, ...); hidden files and folders: 2 (...)".
  std::string note() const;

 private:
  struct Kind {
    int64_t count = 0;
    std::string first;
  };
  void add(const std::string& kind, const std::string& path);
  std::map<std::string, Kind> kinds_;
};

/// FOLDER/NAME, and NAME alone in "".
std::string joined(const std::string& folder, const std::string& name);

/// The paths, sorted, of the image files (has_image_ending) below ROOT/FOLDER, each beginning with
/// `folder`. Links to files and folders are followed, each folder once; hidden ones are not
/// entered. Throws Error when a folder cannot be read or a link leads nowhere.
std::vector<std::string> image_paths_below(const std::string& root, const std::string& folder,
                                           LeftOut& left_out);

/// The names, sorted, of the folders in ROOT/FOLDER that are not hidden; links to folders are such,
/// too. Throws Error as image_paths_below() does.
std::vector<std::string> folders_in(const std::string& root, const std::string& folder,
                                    LeftOut& left_out);

}  // namespace rep
