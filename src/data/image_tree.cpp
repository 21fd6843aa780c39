#include "data/image_tree.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/utf8.h"
#include "data/image_format.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

enum class Kind { kFile, kFolder, kOther };

struct Entry {
  std::string name;
  Kind kind;
};

/// What is hidden on Unix, and what Windows, macOS, file servers and Python leave beside images.
bool is_hidden(const std::string& name) {
  static const std::set<std::string> kKept{"@eaDir",
                                           "#recycle",
                                           "@Recycle",
                                           "#snapshot",
                                           "$RECYCLE.BIN",
                                           "lost+found",
                                           "__MACOSX",
                                           "__pycache__",
                                           "Thumbs.db",
                                           "desktop.ini",
                                           "System Volume Information"};
  return name.empty() || name[0] == '.' || kKept.count(name) > 0;
}

/// What an entry is, or what its link leads to. The listing mostly knows without asking the disk.
Kind kind_of(const fs::directory_entry& entry) {
  std::error_code failed;
  if (entry.is_symlink(failed) && !fs::exists(fs::status(entry.path(), failed))) {
    throw Error(printable(absolute_path(entry.path().string())) + ": a link to '" +
                printable(fs::read_symlink(entry.path(), failed).string()) +
                "', which cannot be followed; put it right or remove it");
  }
  if (entry.is_directory(failed)) return Kind::kFolder;
  return entry.is_regular_file(failed) ? Kind::kFile : Kind::kOther;
}

/// Sorted by name, without what is hidden.
std::vector<Entry> entries_of(const std::string& root, const std::string& folder,
                              LeftOut& left_out) {
  std::error_code failed;
  const std::string path = joined(root, folder);
  std::vector<fs::directory_entry> found;
  for (fs::directory_iterator entry(path, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    found.push_back(*entry);
  }
  if (failed) throw Error(printable(absolute_path(path)) + ": cannot be read: " + failed.message());
  std::sort(found.begin(), found.end());
  std::vector<Entry> entries;
  for (const fs::directory_entry& entry : found) {
    const std::string name = entry.path().filename().string();
    if (is_hidden(name)) {
      left_out.add_hidden(joined(folder, name));
    } else {
      entries.push_back({name, kind_of(entry)});
    }
  }
  return entries;
}

/// Folders by what they are on disk, whatever the path that leads there.
class Seen {
 public:
  /// Holds from the beginning every folder that `folder` lies in: a link up there is a loop.
  explicit Seen(const std::string& folder) {
    std::error_code failed;
    for (fs::path up = fs::canonical(folder, failed); !failed && up.has_relative_path();) {
      up = up.parent_path();
      add(up.string());
    }
  }
  /// Whether it is new.
  bool add(const std::string& folder) {
    struct stat status {};
    if (::stat(folder.c_str(), &status) != 0) return true;  // reading it will say why
    return folders_.insert({status.st_dev, status.st_ino}).second;
  }

 private:
  std::set<std::pair<dev_t, ino_t>> folders_;
};

void walk(const std::string& root, const std::string& folder, Seen& seen, LeftOut& left_out,
          std::vector<std::string>& paths) {
  for (const Entry& entry : entries_of(root, folder, left_out)) {
    const std::string path = joined(folder, entry.name);
    if (entry.kind == Kind::kFolder) {
      if (seen.add(joined(root, path))) {
        walk(root, path, seen, left_out, paths);
      } else {
        left_out.add_repeated(path);
      }
    } else if (entry.kind == Kind::kFile && has_image_ending(entry.name)) {
      paths.push_back(path);
    } else {
      left_out.add_file(path);
    }
  }
}

}  // namespace

std::string joined(const std::string& folder, const std::string& name) {
  return folder.empty() || folder.back() == '/' ? folder + name : folder + "/" + name;
}

void LeftOut::add(const std::string& kind, const std::string& path) {
  Kind& entry = kinds_[kind];
  if (entry.count++ == 0) entry.first = path;
}

void LeftOut::add_file(const std::string& path) {
  const std::string ending = fs::path(path).extension().string();
  add(ending.empty() ? "files without an ending" : ending + " files", path);
}

std::string LeftOut::note() const {
  std::string text;
  for (const auto& [name, kind] : kinds_) {
    text += (text.empty() ? "not read: " : "; ") + printable(name) + ": " +
            std::to_string(kind.count) + " (" + printable(kind.first) +
            (kind.count > 1 ? ", ...)" : ")");
  }
  return text;
}

std::vector<std::string> image_paths_below(const std::string& root, const std::string& folder,
                                           LeftOut& left_out) {
  std::vector<std::string> paths;
  Seen seen(joined(root, folder));
  seen.add(joined(root, folder));
  walk(root, folder, seen, left_out, paths);
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<std::string> folders_in(const std::string& root, const std::string& folder,
                                    LeftOut& left_out) {
  std::vector<std::string> names;
  Seen seen(joined(root, folder));
  seen.add(joined(root, folder));
  for (const Entry& entry : entries_of(root, folder, left_out)) {
    const std::string path = joined(folder, entry.name);
    if (entry.kind == Kind::kFolder) {
      if (seen.add(joined(root, path))) {
        names.push_back(entry.name);
      } else {
        left_out.add_repeated(path);
      }
    } else if (entry.kind == Kind::kFile && has_image_ending(entry.name)) {
      left_out.add_stray(path);
    } else {
      left_out.add_file(path);
    }
  }
  return names;
}

}  // namespace rep
