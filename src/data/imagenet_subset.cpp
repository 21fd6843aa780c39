// ImageNet-Subset, also called ImageNet-100: 100 classes of ImageNet-1k (Russakovsky et al., arXiv
// 1409.0575), from an ordinary ImageNet tree (ROOT/train/<wnid>/*.JPEG, ROOT/val/<wnid>/*.JPEG).
// Two incompatible sets of 100 classes carry that name:
//   first100   the first 100 wnids in sorted order (iCaRL's and BiC's habit; PODNet, CarM; default)
//   lucir1993  100 of the 1000 that numpy's seed 1993 chooses (LUCIR, mnemonics)
// Labels follow the sorted wnids; the usual class order of both is stream.class_order: 1993.
#include <array>
#include <cstdio>
#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "core/utf8.h"
#include "data/image_files.h"

namespace rep {
namespace {

// The numbers behind the n of the wnids.
constexpr std::array<uint32_t, 100> kFirst100{
    1440764, 1443537, 1484850, 1491361, 1494475, 1496331, 1498041, 1514668, 1514859, 1518878,
    1530575, 1531178, 1532829, 1534433, 1537544, 1558993, 1560419, 1580077, 1582220, 1592084,
    1601694, 1608432, 1614925, 1616318, 1622779, 1629819, 1630670, 1631663, 1632458, 1632777,
    1641577, 1644373, 1644900, 1664065, 1665541, 1667114, 1667778, 1669191, 1675722, 1677366,
    1682714, 1685808, 1687978, 1688243, 1689811, 1692333, 1693334, 1694178, 1695060, 1697457,
    1698640, 1704323, 1728572, 1728920, 1729322, 1729977, 1734418, 1735189, 1737021, 1739381,
    1740131, 1742172, 1744401, 1748264, 1749939, 1751748, 1753488, 1755581, 1756291, 1768244,
    1770081, 1770393, 1773157, 1773549, 1773797, 1774384, 1774750, 1775062, 1776313, 1784675,
    1795545, 1796340, 1797886, 1798484, 1806143, 1806567, 1807496, 1817953, 1818515, 1819313,
    1820546, 1824575, 1828970, 1829413, 1833805, 1843065, 1843383, 1847000, 1855032, 1855672};
constexpr std::array<uint32_t, 100> kLucir1993{
    1514668, 1531178, 1537544, 1689811, 1729322, 1744401, 1774384,  1775062,  1806567,  1882714,
    1914609, 1984695, 1990800, 2002556, 2011460, 2033041, 2088094,  2091467,  2094258,  2096177,
    2101388, 2102318, 2105056, 2107574, 2107908, 2112137, 2112706,  2115913,  2116738,  2120079,
    2123597, 2128385, 2128757, 2168699, 2229544, 2279972, 2280649,  2363005,  2526121,  2536864,
    2640242, 2669723, 2749479, 2786058, 2814860, 2840245, 2917067,  2948072,  2950826,  2951585,
    2971356, 3000247, 3016953, 3017168, 3075370, 3085013, 3089624,  3109150,  3141823,  3223299,
    3250847, 3290653, 3485407, 3527444, 3532672, 3657121, 3691459,  3697007,  3710193,  3759954,
    3775071, 3785016, 3884397, 3891332, 3942813, 3967562, 4026417,  4074963,  4152593,  4153751,
    4266014, 4355933, 4371430, 4399382, 4409515, 4428191, 4442312,  4525305,  4550184,  4591157,
    4599235, 4604644, 7614500, 7831146, 7892512, 9468604, 12267677, 12620546, 12768682, 15075141};

struct ImageNetSubsetOptions : ImageFilesOptions {
  ImageNetSubsetOptions() { root = "datasets/imagenet"; }
  std::string definition = "first100";
  std::string train = "train", val = "val";
  std::string train_list, val_list;
  template <class Visitor>
  void fields(Visitor&& visit) {
    common_fields(visit);
    visit("definition", definition, one_of({"first100", "lucir1993", "present"}),
          doc("Which 100 classes. first100: the first by WordNet id; lucir1993: those that numpy's "
              "seed 1993 draws; present: whatever classes are there.",
              "", "first100: PODNet; lucir1993: LUCIR"));
    visit("train", train, doc("Folder of training images, below root."));
    visit("val", val, doc("Folder of validation images, which are the test images, below root."));
    visit("train_list", train_list, path_of_input,
          doc("File of 'path label' lines that names the training images, in place of the folder; "
              "paths are below root."));
    visit("val_list", val_list, path_of_input, doc("The same for the test images."));
  }
};

std::vector<std::string> wnids(const ImageNetSubsetOptions& options, LeftOut& left_out) {
  if (options.definition == "present") return folders_in(options.root, options.train, left_out);
  std::vector<std::string> names;
  for (const uint32_t number : options.definition == "first100" ? kFirst100 : kLucir1993) {
    char name[16];
    std::snprintf(name, sizeof name, "n%08u", number);
    names.emplace_back(name);
  }
  return names;
}

std::unique_ptr<ImageFiles> open(const ImageNetSubsetOptions& options, Split split) {
  const bool training = split == Split::kTrain;
  const std::string& folder = training ? options.train : options.val;
  const std::string& list = training ? options.train_list : options.val_list;
  if (!std::filesystem::is_directory(options.root)) {
    throw Error(printable(absolute_path(options.root)) +
                ": not there; set dataset.root to an ImageNet tree (train/<wnid>/*.JPEG, "
                "val/<wnid>/*.JPEG), see datasets/README.md");
  }
  LeftOut left_out;
  const std::vector<std::string> classes = wnids(options, left_out);
  const auto count = static_cast<int64_t>(classes.size());
  if (!list.empty()) {
    return std::make_unique<ImageFiles>(options.root, read_image_list(list, count), classes,
                                        printable(absolute_path(list)));
  }
  std::vector<ImageFile> files;
  for (int64_t label = 0; label < count; ++label) {
    const std::string below = folder + "/" + classes[static_cast<size_t>(label)];
    if (!std::filesystem::is_directory(options.root + "/" + below)) {
      throw Error(printable(absolute_path(options.root + "/" + below)) + ": not there, but " +
                  options.definition +
                  " has that class; complete the tree, or take dataset.definition: present");
    }
    for (std::string& path : image_paths_below(options.root, below, left_out)) {
      files.push_back({std::move(path), label, {}});
    }
  }
  auto images = std::make_unique<ImageFiles>(options.root, std::move(files), classes,
                                             printable(absolute_path(options.root)));
  images->set_left_out(left_out);
  return images;
}

const Registered<DatasetKind> kImageNetSubset{
    "imagenet_subset",
    "100 classes of ImageNet-1k (Russakovsky et al. 2015, arXiv 1409.0575), by two definitions",
    {[](const Section& section, Split split, int64_t) {
       const auto options = read_section<ImageNetSubsetOptions>(section);
       return with_options(open(options, split), options);
     },
     [](const Section& section) { return section_json<ImageNetSubsetOptions>(section); },
     describe_fields<ImageNetSubsetOptions>,
     // ImageNet-1k's classes have 732 to 1,300 training images and 50 for validation.
     [](const Section& section, Split split) {
       const auto options = read_section<ImageNetSubsetOptions>(section);
       if (options.definition == "present") return OfficialCounts{};
       return split == Split::kTrain ? OfficialCounts{0, 732} : OfficialCounts{5000, 50};
     },
     /*stand_in=*/nullptr,
     [](const std::string& weights) -> std::string {
       if (weights.find("in1k") == std::string::npos) return "";
       return "the weights saw ImageNet-1k's labels: accuracies on this data set are contaminated";
     }}};

}  // namespace
}  // namespace rep
