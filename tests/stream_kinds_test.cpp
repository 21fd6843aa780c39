// Streams whose tasks share classes: domains, and blurred boundaries as i-Blurry and Si-Blurry have
// them.
#include "data/stream_kinds.h"

#include <map>
#include <numeric>
#include <set>

#include "data/blurry_cut.h"
#include "data/published_shuffles.h"
#include "tests/image_sets.h"
#include "tests/labels.h"

namespace rep {
namespace {

std::string message(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

std::vector<size_t> sizes(const std::vector<std::vector<int64_t>>& lists) {
  std::vector<size_t> sizes;
  for (const auto& list : lists) sizes.push_back(list.size());
  return sizes;
}

BlurryConfig blurry(double disjoint, double blur, bool varied = false) {
  BlurryConfig config;
  config.disjoint = disjoint;
  config.blur = blur;
  config.varied = varied;
  return config;
}

TEST(TorchDraws, AreThoseOfTorchsGenerator) {
  // torch 2.13, torch.Generator().manual_seed(1): randperm(10), then two randint.
  TorchDraws draws(1);
  EXPECT_EQ(draws.permutation(10), (std::vector<int64_t>{5, 6, 1, 2, 0, 8, 9, 3, 7, 4}));
  EXPECT_EQ(draws.below(5, 7), (std::vector<int64_t>{2, 3, 4, 1, 3, 3, 0}));
  EXPECT_EQ(draws.below(100000, 3), (std::vector<int64_t>{3302, 9721, 242}));
  EXPECT_EQ(TorchDraws(4294967295U).permutation(12),
            (std::vector<int64_t>{3, 1, 8, 9, 2, 6, 10, 11, 0, 5, 7, 4}));
}

TEST(BlurryCut, DealsTheFirstImagesOfBlurryClassesToAllTasks) {
  // Class c has the images c, c + 4, ..., c + 16. Drawn: classes 1, 3, 2, 0, so that task 0 has
  // class 1 to itself and is class 2's home, and task 1 has class 3 and is class 0's. Of classes 2
  // and 0 two images of five each go into the pool, {2, 6, 0, 4}, and each task gets two back.
  const BlurryCut cut = cut_blurry(Labels(4, 5).labels(), 4, 2, blurry(0.5, 0.4), /*seed=*/1);
  EXPECT_EQ(cut.class_order, (std::vector<int64_t>{1, 3, 2, 0}));
  const std::set<int64_t> first(cut.images[0].begin(), cut.images[0].end());
  const std::set<int64_t> second(cut.images[1].begin(), cut.images[1].end());
  for (const int64_t image : {1, 5, 9, 13, 17, 10, 14, 18}) EXPECT_EQ(first.count(image), 1U);
  for (const int64_t image : {3, 7, 11, 15, 19, 8, 12, 16}) EXPECT_EQ(second.count(image), 1U);
  EXPECT_EQ(first.size(), 10U);
  EXPECT_EQ(second.size(), 10U);
  // The published sampler, run with torch 2.13 on the same labels.
  EXPECT_EQ(cut.images, (std::vector<std::vector<int64_t>>{{5, 14, 0, 1, 13, 9, 17, 10, 18, 2},
                                                           {3, 19, 15, 16, 4, 8, 11, 6, 7, 12}}));
  EXPECT_EQ(cut_blurry(Labels(4, 5).labels(), 4, 2, blurry(0.5, 0.4, true), 1).images,
            (std::vector<std::vector<int64_t>>{
                {14, 10, 6, 18, 8}, {17, 12, 7, 19, 4, 15, 0, 13, 3, 16, 9, 1, 2, 11, 5}}));
}

/// Sum of the first 50 of each task's images.
std::vector<int64_t> sums_of_50(const BlurryCut& cut) {
  std::vector<int64_t> sums;
  for (const auto& task : cut.images) {
    sums.push_back(std::accumulate(task.begin(), task.begin() + 50, int64_t{0}));
  }
  return sums;
}

TEST(BlurryCut, HasSiBlurrysCountsForItsSeeds) {
  // 100 classes of 500 images, 5 tasks, N 50, M 10: the published sampler's counts, with
  // torch 2.13.
  const Labels train(100, 500);
  const auto cut = [&](uint32_t seed, bool varied) {
    return cut_blurry(train.labels(), 100, 5, blurry(0.5, 0.1, varied), seed);
  };
  using Sizes = std::vector<size_t>;
  using Sums = std::vector<int64_t>;
  EXPECT_EQ(sizes(cut(1, false).images), Sizes(5, 10000));
  EXPECT_EQ(sums_of_50(cut(1, false)), (Sums{1027142, 1157224, 1254203, 1434363, 1223279}));
  EXPECT_EQ(sums_of_50(cut(2, false)), (Sums{1399246, 1332251, 1193405, 1128264, 1218656}));
  EXPECT_EQ(sums_of_50(cut(3, false)), (Sums{1309394, 1344659, 1262381, 1269914, 1279881}));
  EXPECT_EQ(sizes(cut(1, true).images), (Sizes{6500, 3000, 10264, 22000, 8236}));
  EXPECT_EQ(sizes(cut(2, true).images), (Sizes{4500, 9500, 13500, 10500, 12000}));
  EXPECT_EQ(sizes(cut(3, true).images), (Sizes{21000, 13000, 2500, 7500, 6000}));
  EXPECT_EQ(sums_of_50(cut(1, true)), (Sums{1234002, 1184374, 1296884, 1276174, 1281450}));
  EXPECT_EQ(sums_of_50(cut(2, true)), (Sums{1246763, 1252866, 1260763, 1275764, 1156262}));
  EXPECT_EQ(sums_of_50(cut(3, true)), (Sums{1126076, 1391704, 1160768, 1415293, 1365554}));
}

TEST(BlurryCut, HasTheCountsOfIBlurrysPublishedSplits) {
  // collections/cifar10/cifar10_split5_n50_m10_rand{1,2}_task*.json (naver-ai/i-Blurry): 10,000
  // images a task; 5,000 of its own class, the 4,500 that its blurry class keeps and 500 dealt. Who
  // gets which of the dealt ones is their generator's; these numbers hold for any.
  const Labels train(10, 5000);
  for (const uint32_t seed : {1U, 2U, 7U}) {
    const BlurryCut cut = cut_blurry(train.labels(), 10, 5, blurry(0.5, 0.1), seed);
    std::map<int64_t, int64_t> total;
    for (const auto& task : cut.images) {
      EXPECT_EQ(task.size(), 10000U);
      std::map<int64_t, int64_t> counts;
      for (const int64_t i : task) ++counts[train.labels()[static_cast<size_t>(i)]];
      EXPECT_EQ(counts.size(), 6U) << "its own, and the five blurry ones";
      int64_t own = 0, home = 0, dealt = 0;
      for (const auto& [label, images] : counts) {
        total[label] += images;
        if (images == 5000) {
          ++own;
        } else if (images >= 4500) {
          ++home;
          dealt += images - 4500;
        } else {
          dealt += images;
        }
      }
      EXPECT_EQ(own, 1);
      EXPECT_EQ(home, 1);
      EXPECT_EQ(dealt, 500);
    }
    for (const auto& [label, images] : total) EXPECT_EQ(images, 5000) << label;
  }
}

TEST(BlurryCut, KeepsEveryImageWhereThePoolLeavesARest) {
  // 6 classes of 7 images, 3 tasks: of each task's 7 blurry images floor(0.3 x 7) = 2 are pooled; 6
  // of them divide, and with blur 0.15 the pool of 3 x 1 does. 4 classes in 3 tasks leave a rest.
  for (const double blur : {0.3, 0.15, 0.0, 1.0}) {
    const BlurryCut cut = cut_blurry(Labels(6, 7).labels(), 6, 3, blurry(0.5, blur), 5);
    EXPECT_EQ(sizes(cut.images), (std::vector<size_t>{14, 14, 14}));
  }
  const BlurryCut rest = cut_blurry(Labels(2, 7).labels(), 2, 2, blurry(0, 0.3), 5);
  EXPECT_EQ(sizes(rest.images), (std::vector<size_t>{7, 7}));
  const BlurryCut odd = cut_blurry({0, 0, 0, 0, 0, 1}, 2, 2, blurry(0, 0.6), 1);
  EXPECT_EQ(odd.images[0].size() + odd.images[1].size(), 6U) << "a pool of 3 for 2 tasks";
}

TEST(BlurryCut, RefusesWhatWouldLoseClassesOrImages) {
  const auto cut = [](int64_t classes, int64_t tasks, const BlurryConfig& config, uint32_t seed) {
    return message([&] { cut_blurry(Labels(classes, 4).labels(), classes, tasks, config, seed); });
  };
  EXPECT_EQ(cut(10, 3, blurry(0.5, 0.1), 1),
            "stream.blurry: 7 blurry classes do not divide into 3 equal tasks; change stream.tasks "
            "or blurry.disjoint, or set blurry.varied: true");
  EXPECT_NE(cut(3, 4, blurry(0.5, 0.1), 1).find("4 tasks cannot share 3 classes"),
            std::string::npos);
  int64_t refused = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::string text = cut(4, 4, blurry(1, 0, true), seed);
    refused += text.find("is drawn without images") != std::string::npos ? 1 : 0;
  }
  EXPECT_GT(refused, 0);
}

StreamConfig blurry_stream(int64_t tasks, double disjoint, double blur) {
  StreamConfig config;
  config.kind = "blurry";
  config.tasks = tasks;
  config.blurry = blurry(disjoint, blur);
  config.blurry.seed = 1;
  return config;
}

TEST(BlurryStream, NumbersClassesAsTheyAreFirstShownAndTestsThemThere) {
  // The small case above: task 0 shows classes 1 and 2, and 0, of which image 0 was dealt to it;
  // task 1 is the first to show class 3 alone.
  const Stream stream = cut_into_tasks(Labels(4, 5), Labels(4, 2), blurry_stream(2, 0.5, 0.4), 42);
  EXPECT_FALSE(stream.disjoint);
  EXPECT_EQ(stream.class_order, (std::vector<int64_t>{1, 2, 0, 3}));
  ASSERT_EQ(stream.tasks.size(), 2U);
  EXPECT_EQ(stream.tasks[0].classes, (std::vector<int64_t>{1, 2, 0}));
  EXPECT_EQ(stream.tasks[1].classes, (std::vector<int64_t>{1, 2, 0, 3}));
  EXPECT_EQ(stream.tasks[1].first_label, 0);
  EXPECT_EQ(stream.tasks[0].last_label(), 3);
  std::vector<int64_t> images, labels;
  for (const Sample& sample : stream.tasks[0].train) {
    images.push_back(sample.index);
    labels.push_back(sample.label);
  }
  EXPECT_EQ(images, (std::vector<int64_t>{5, 14, 0, 1, 13, 9, 17, 10, 18, 2}));
  EXPECT_EQ(labels, (std::vector<int64_t>{0, 1, 2, 0, 0, 0, 0, 1, 1, 1}));
  // Test images 0..7 are of classes 0, 1, 2, 3, 0, ...
  std::vector<int64_t> tested;
  for (const Sample& sample : stream.tasks[0].test) tested.push_back(sample.index);
  EXPECT_EQ(tested, (std::vector<int64_t>{0, 1, 2, 4, 5, 6}));
  EXPECT_EQ(stream.tasks[1].test.size(), 2U);
  EXPECT_EQ(stream.tasks[1].test[0].label, 3);
}

TEST(BlurryStream, OfDisjointClassesAloneIsTheUsualCut) {
  const Stream stream = cut_into_tasks(Labels(6, 4), Labels(6, 2), blurry_stream(3, 1, 0.1), 42);
  for (const Task& task : stream.tasks) {
    std::set<int64_t> labels;
    for (const Sample& sample : task.train) labels.insert(sample.label);
    EXPECT_EQ(labels, (std::set<int64_t>{2 * task.index, 2 * task.index + 1}));
    EXPECT_EQ(task.train.size(), 8U);
    EXPECT_EQ(task.test.size(), 4U);
  }
}

TEST(BlurryStream, IsDrawnByItsOwnSeedOrTheRuns) {
  StreamConfig config = blurry_stream(2, 0.5, 0.4);
  const auto order = [&](int64_t seed) {
    return cut_into_tasks(Labels(40, 5), Labels(40, 2), config, seed).class_order;
  };
  EXPECT_EQ(order(1), order(2));
  const auto fixed = order(1);
  config.blurry.seed = -1;
  EXPECT_EQ(order(1), fixed);
  EXPECT_NE(order(1), order(2));
}

TEST(StreamKinds, RefuseKeysThatSayNothing) {
  const auto refused = [](const StreamConfig& config) {
    return message([&] { cut_into_tasks(Labels(4, 5), Labels(4, 2), config, 42); });
  };
  StreamConfig config = blurry_stream(2, 0.5, 0.4);
  config.class_order = std::string("1993");
  EXPECT_NE(refused(config).find("stream.class_order: a blurry stream draws its own"),
            std::string::npos);
  config = blurry_stream(2, 0.5, 0.4);
  config.classes_per_task = {2, 2};
  EXPECT_NE(refused(config).find("which a stream of kind blurry does not"), std::string::npos);
  config = blurry_stream(2, 0.5, 0.4);
  config.order = "class_iid";
  EXPECT_NE(refused(config).find("take shuffled or stored"), std::string::npos);
  config = blurry_stream(2, 0.5, 0.4);
  config.kind = "online";
  EXPECT_EQ(refused(config),
            "stream.blurry: is of stream.kind blurry, and this stream is online; take one of them "
            "away");
  config = StreamConfig();
  config.tasks = 2;
  config.domain_order = std::string("seed");
  EXPECT_NE(refused(config).find("stream.domain_order: is of stream.kind domain_incremental"),
            std::string::npos);
  config.kind = "domain_incremental";
  EXPECT_NE(refused(config).find("needs a data set that knows its images' domains"),
            std::string::npos);
}

// ---- domains ----

/// Three domains of two classes; of `real` one class has an image more.
std::string draw_domains(const std::string& name) {
  const std::string root = fresh_folder(name);
  uint8_t seed = 0;
  for (const char* split : {"train", "test"}) {
    for (const char* domain : {"clipart", "real", "sketch"}) {
      for (const char* c : {"ant", "bee"}) {
        const int images = std::string(domain) + c == "realbee" ? 4 : 3;
        for (int i = 0; i < images; ++i) {
          put(root + "/" + split + "/" + domain + "/" + c + "/" + std::to_string(i) + ".png",
              picture(5, 5, ++seed));
        }
      }
    }
  }
  return root;
}

std::string yaml_of(const std::string& root, const std::string& more = "") {
  return "{name: domain_folder, root: '" + root + "'" + more + "}";
}

Stream cut_domains(const std::string& yaml, StreamConfig config = {}, int64_t seed = 42) {
  config.kind = "domain_incremental";
  return cut_into_tasks(*open(yaml, Split::kTrain), *open(yaml, Split::kTest), config, seed);
}

std::vector<std::string> domains_of(const Stream& stream) {
  std::vector<std::string> names;
  for (const Task& task : stream.tasks) names.push_back(task.domain);
  return names;
}

TEST(DomainStream, MakesEachDomainATaskWithAllClasses) {
  const std::string yaml = yaml_of(draw_domains("domains"));
  const Stream stream = cut_domains(yaml);
  EXPECT_EQ(domains_of(stream), (std::vector<std::string>{"clipart", "real", "sketch"}));
  EXPECT_FALSE(stream.disjoint);
  EXPECT_EQ(stream.num_classes(), 2);
  std::set<int64_t> seen;
  for (const Task& task : stream.tasks) {
    EXPECT_EQ(task.first_label, 0);
    EXPECT_EQ(task.last_label(), 2);
    EXPECT_EQ(task.classes, (std::vector<int64_t>{0, 1}));
    EXPECT_EQ(task.train.size(), task.domain == "real" ? 7U : 6U);
    EXPECT_EQ(task.test.size(), task.domain == "real" ? 7U : 6U);
    for (const Sample& sample : task.train) seen.insert(sample.index);
  }
  EXPECT_EQ(seen.size(), 19U);
  // Images are sorted by domain, class and name: those of `real` are 6 to 12.
  EXPECT_EQ(stream.tasks[1].train[2].index, 8);
  EXPECT_EQ(stream.tasks[1].train[2].label, 0);
  EXPECT_EQ(stream.tasks[1].train[3].label, 1);
}

TEST(DomainStream, OrdersDomainsByNameByASeedOrByAList) {
  const std::string yaml = yaml_of(draw_domains("domain_order"));
  StreamConfig config;
  config.domain_order = std::vector<int64_t>{2, 0, 1};
  EXPECT_EQ(domains_of(cut_domains(yaml, config)),
            (std::vector<std::string>{"sketch", "clipart", "real"}));
  config.domain_order = std::string("seed");
  std::set<std::vector<std::string>> orders;
  for (int64_t seed = 0; seed < 20; ++seed) {
    orders.insert(domains_of(cut_domains(yaml, config, seed)));
    EXPECT_EQ(domains_of(cut_domains(yaml, config, seed)),
              domains_of(cut_domains(yaml, config, seed)));
  }
  EXPECT_GT(orders.size(), 2U);
  config.domain_order = std::vector<int64_t>{0, 1};
  EXPECT_NE(message([&] { cut_domains(yaml, config); }).find("list each of 0..2 once"),
            std::string::npos);
  config.domain_order = std::string("name");
  EXPECT_NE(message([&] { cut_domains(yaml, config); }).find("neither natural, seed nor a list"),
            std::string::npos);
  config = StreamConfig();
  config.tasks = 2;
  EXPECT_EQ(message([&] { cut_domains(yaml, config); }),
            "stream.tasks: 2 tasks, but each of the 3 domains ('clipart', 'real', 'sketch') is "
            "one; leave tasks out");
}

TEST(DomainFolder, SplitsOffAShareOfEachClassOfEachDomain) {
  const std::string root = draw_domains("domain_share") + "/train";
  const Stream stream = cut_domains(yaml_of(root, ", test_share: 0.34"));
  for (const Task& task : stream.tasks) {
    EXPECT_EQ(task.test.size(), 2U) << "one of three or four images, of two classes";
    EXPECT_EQ(task.train.size(), task.domain == "real" ? 5U : 4U);
  }
}

TEST(DomainFolder, TakesDomainNetsListsWhosePathsBeginWithTheDomain) {
  const std::string root = draw_domains("domain_lists") + "/train";
  const std::string train = write_text(root + "/../train.txt",
                                       "clipart/bee/0.png 1\nreal/ant/1.png 0\nreal/bee/3.png 1\n"
                                       "sketch/ant/0.png 0\n");
  const std::string test = write_text(
      root + "/../test.txt", "clipart/bee/1.png 1\nreal/ant/2.png 0\nsketch/ant/2.png 0\n");
  const std::string lists = ", train_list: '" + train + "', test_list: '" + test + "'";
  const Stream stream = cut_domains(yaml_of(root, lists));
  EXPECT_EQ(stream.tasks[1].train.size(), 2U);
  EXPECT_EQ(stream.tasks[1].train[1].label, 1);
  EXPECT_EQ(stream.tasks[2].test.size(), 1U);
  write_text(train, "painting/bee/0.png 1\n");
  EXPECT_NE(message([&] {
              cut_domains(yaml_of(root, lists));
            }).find("'painting/bee/0.png' does not begin with a domain's folder"),
            std::string::npos);
  EXPECT_NE(message_of(yaml_of(root, ", train_list: '" + train + "'"), Split::kTrain)
                .find("train_list and test_list go together"),
            std::string::npos);
}

TEST(DomainFolder, NamesTheDomainThatLacksAClass) {
  const std::string root = draw_domains("domain_lacks");
  std::filesystem::remove_all(root + "/train/sketch/bee");
  EXPECT_EQ(message_of(yaml_of(root), Split::kTrain),
            root +
                "/train: the domain 'sketch' and 'clipart' do not both have the class 'bee'; every "
                "domain needs a folder for each class");
  std::filesystem::create_directories(root + "/train/sketch/bee");
  std::filesystem::remove_all(root + "/test/real/ant");
  std::filesystem::create_directories(root + "/test/real/ant");
  std::filesystem::remove_all(root + "/test/real/bee");
  std::filesystem::create_directories(root + "/test/real/bee");
  EXPECT_EQ(message([&] { cut_domains(yaml_of(root)); }),
            "dataset: the domain 'real' has no test images; every domain needs both, or must go");
  std::filesystem::remove_all(root + "/test/real");
  EXPECT_NE(message([&] { cut_domains(yaml_of(root)); }).find("have different domains"),
            std::string::npos);
  EXPECT_NE(message_of(yaml_of(root + "/nowhere"), Split::kTrain)
                .find("not a folder that holds a folder for each domain"),
            std::string::npos);
}

TEST(DomainStream, HasDomainsInAValidationShareToo) {
  Config config;
  config.dataset = section(yaml_of(draw_domains("domain_validation")));
  config.stream.kind = "domain_incremental";
  config.stream.validation = 0.4;
  const Splits splits = open_splits(config);
  EXPECT_EQ(splits.test->domains().size(), static_cast<size_t>(splits.test->size()));
  EXPECT_EQ(splits.train->domain_names().size(), 3U);
}

}  // namespace
}  // namespace rep
