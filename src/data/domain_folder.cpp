// Images of the same classes in several domains (styles, seasons, cameras), a folder for each
// domain and in it one for each class: ROOT/train/<domain>/<class>/...,
// ROOT/test/<domain>/<class>/...; or ROOT/<domain>/<class>/... alone, of which a fixed share of
// each class in each domain is taken as test images; or two lists of "path label" lines whose paths
// begin <domain>/<class>. CORe50 (Lomonaco and Maltoni, arXiv 1705.03550: s1/o1/...) and DomainNet
// (Peng et al., arXiv 1812.01754: clipart/aircraft_carrier/..., with its own lists) lie so.
#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "core/utf8.h"
#include "data/image_files.h"

namespace rep {
namespace {

// Whether the domains lie in the root itself.
bool is_shared(const ImageFolderOptions& options) {
  return options.test_share > 0 || !options.train_list.empty() || !options.test_list.empty();
}

/// The domains in ROOT/FOLDER and the classes, which are the same in each. Throws Error.
struct DomainTree {
  std::vector<std::string> domains, classes;
};
DomainTree read_tree(const std::string& root, const std::string& folder, LeftOut& left_out) {
  const std::string path = folder.empty() ? root : joined(root, folder);
  const std::string where = printable(absolute_path(path));
  DomainTree tree;
  if (std::filesystem::is_directory(path)) tree.domains = folders_in(root, folder, left_out);
  if (tree.domains.empty()) {
    throw Error(where +
                ": not a folder that holds a folder for each domain, with one for each class in "
                "it; set dataset.root, and dataset.train, dataset.test or dataset.test_share to "
                "how the images lie");
  }
  for (const std::string& domain : tree.domains) {
    std::vector<std::string> classes = folders_in(root, joined(folder, domain), left_out);
    if (domain == tree.domains.front()) tree.classes = classes;
    std::vector<std::string> odd;
    std::set_symmetric_difference(classes.begin(), classes.end(), tree.classes.begin(),
                                  tree.classes.end(), std::back_inserter(odd));
    if (odd.empty() && !classes.empty()) continue;
    const std::string what = classes.empty() ? "has no folder of a class"
                                             : "and '" + printable(tree.domains.front()) +
                                                   "' do not both have the class '" +
                                                   printable(odd.front()) + "'";
    throw Error(where + ": the domain '" + printable(domain) + "' " + what +
                "; every domain needs a folder for each class");
  }
  return tree;
}

/// Gives each file of a list the domain that its path begins with.
void find_domains(std::vector<ImageFile>& files, const std::vector<std::string>& domains,
                  const std::string& list) {
  for (ImageFile& file : files) {
    const std::string name = file.path.substr(0, file.path.find('/'));
    const auto found = std::lower_bound(domains.begin(), domains.end(), name);
    if (found == domains.end() || *found != name) {
      throw Error(printable(absolute_path(list)) + ": '" + printable(file.path.substr(0, 200)) +
                  "' does not begin with a domain's folder; paths are DOMAIN/CLASS/FILE below "
                  "dataset.root");
    }
    file.domain = found - domains.begin();
  }
}

std::vector<ImageFile> files_of(const ImageFolderOptions& options, Split split,
                                const std::string& folder, const DomainTree& tree,
                                LeftOut& left_out) {
  std::vector<ImageFile> files;
  for (size_t d = 0; d < tree.domains.size(); ++d) {
    for (size_t label = 0; label < tree.classes.size(); ++label) {
      const std::string path = joined(joined(folder, tree.domains[d]), tree.classes[label]);
      auto images = image_paths_below(options.root, path, left_out);
      if (options.test_share > 0) {
        images = share_of(std::move(images), options.test_share, options.split_seed,
                          d * tree.classes.size() + label, split);
      }
      for (std::string& image : images) {
        files.push_back(
            {std::move(image), static_cast<int64_t>(label), {}, false, static_cast<int64_t>(d)});
      }
    }
  }
  return files;
}

std::unique_ptr<ImageFiles> open_domains(const ImageFolderOptions& options, Split split) {
  if (options.root.empty()) {
    throw Error("dataset.root: domain_folder needs the folder of the images");
  }
  const bool training = split == Split::kTrain;
  const std::string& list = training ? options.train_list : options.test_list;
  if (options.train_list.empty() != options.test_list.empty()) {
    throw Error("dataset: train_list and test_list go together; give both or neither");
  }
  const std::string folder = is_shared(options) ? "" : training ? options.train : options.test;
  LeftOut left_out;
  const DomainTree tree = read_tree(options.root, folder, left_out);
  std::vector<ImageFile> files;
  if (list.empty()) {
    files = files_of(options, split, folder, tree, left_out);
  } else {
    files = read_image_list(list, static_cast<int64_t>(tree.classes.size()));
    find_domains(files, tree.domains, list);
  }
  auto images =
      std::make_unique<ImageFiles>(options.root, std::move(files), tree.classes,
                                   printable(absolute_path(list.empty() ? options.root : list)));
  images->set_domains(tree.domains);
  images->set_left_out(left_out);
  return images;
}

const Registered<DatasetKind> kDomainFolder{
    "domain_folder",
    "any folder of domains with the same classes in each (CORe50, arXiv 1705.03550; DomainNet, "
    "arXiv 1812.01754)",
    {[](const Section& section, Split split, int64_t) {
       const auto options = read_section<ImageFolderOptions>(section);
       return with_options(open_domains(options, split), options);
     },
     [](const Section& section) { return section_json<ImageFolderOptions>(section); },
     describe_fields<ImageFolderOptions>}};

}  // namespace
}  // namespace rep
