#include "data/blurry_cut.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "data/published_shuffles.h"

namespace rep {
namespace {

using Lists = std::vector<std::vector<int64_t>>;

/// floor(share n), of shares that are decimal fractions.
int64_t part_of(double share, int64_t n) {
  return static_cast<int64_t>(share * static_cast<double>(n) + 1e-9);
}

class BlurryDraw {
 public:
  BlurryDraw(const std::vector<int64_t>& labels, int64_t num_classes, int64_t tasks,
             const BlurryConfig& config, uint32_t seed)
      : labels_(labels),
        classes_(num_classes),
        tasks_(tasks),
        config_(config),
        draws_(seed),
        disjoint_(part_of(config.disjoint, num_classes) / tasks * tasks),
        homes_(static_cast<size_t>(num_classes)) {}

  BlurryCut make() {
    BlurryCut cut;
    cut.class_order = draws_.permutation(classes_);
    give_homes(cut.class_order, 0, disjoint_, /*blurry=*/false);
    give_homes(cut.class_order, disjoint_, classes_, /*blurry=*/true);
    Lists blurry(static_cast<size_t>(tasks_));
    cut.images.resize(static_cast<size_t>(tasks_));
    for (size_t i = 0; i < labels_.size(); ++i) {
      const Home& home = homes_[static_cast<size_t>(labels_[i])];
      (home.blurry ? blurry : cut.images)[home.task].push_back(static_cast<int64_t>(i));
    }
    deal(blurry);
    for (size_t t = 0; t < cut.images.size(); ++t) {
      std::vector<int64_t>& images = cut.images[t];
      images.insert(images.end(), blurry[t].begin(), blurry[t].end());
      images = shuffled_by_draws(images);
    }
    return cut;
  }

  int64_t blurry_classes() const { return classes_ - disjoint_; }

 private:
  struct Home {
    size_t task = 0;
    bool blurry = false;
  };

  std::vector<int64_t> shuffled_by_draws(const std::vector<int64_t>& list) {
    std::vector<int64_t> result;
    for (const int64_t i : draws_.permutation(static_cast<int64_t>(list.size()))) {
      result.push_back(list[static_cast<size_t>(i)]);
    }
    return result;
  }

  /// Where each task's part of n begins, and the end of the last: equal parts, or drawn ones.
  std::vector<int64_t> edges_of(int64_t n) {
    std::vector<int64_t> edges{0};
    if (config_.varied && n > 0) {
      const std::vector<int64_t> drawn = draws_.below(n, tasks_ - 1);
      edges.insert(edges.end(), drawn.begin(), drawn.end());
      std::sort(edges.begin(), edges.end());
      edges.push_back(n);
    } else {
      for (int64_t t = 0; t < tasks_; ++t) {
        edges.push_back(edges.back() + n / tasks_ + (t < n % tasks_ ? 1 : 0));
      }
    }
    return edges;
  }

  void give_homes(const std::vector<int64_t>& order, int64_t first, int64_t last, bool blurry) {
    const std::vector<int64_t> edges = edges_of(last - first);
    for (size_t t = 0; t + 1 < edges.size(); ++t) {
      for (int64_t k = edges[t]; k < edges[t + 1]; ++k) {
        homes_[static_cast<size_t>(order[static_cast<size_t>(first + k)])] = {t, blurry};
      }
    }
  }

  /// Takes the first images of each task's and deals them to all.
  void deal(Lists& blurry) {
    int64_t images = 0;
    for (const auto& list : blurry) images += static_cast<int64_t>(list.size());
    std::vector<int64_t> edges;  // of varied tasks, how many each gives and gets
    if (config_.varied) edges = edges_of(part_of(config_.blur, images));
    std::vector<int64_t> pool;
    for (size_t t = 0; t < blurry.size(); ++t) {
      const auto size = static_cast<int64_t>(blurry[t].size());
      const int64_t given =
          config_.varied ? std::min(size, edges[t + 1] - edges[t]) : part_of(config_.blur, size);
      pool.insert(pool.end(), blurry[t].begin(), blurry[t].begin() + given);
      blurry[t].erase(blurry[t].begin(), blurry[t].begin() + given);
    }
    const auto all = static_cast<int64_t>(pool.size());
    if (all == 0) return;
    pool = shuffled_by_draws(pool);
    if (!config_.varied) edges = edges_of(all);
    for (size_t t = 0; t < blurry.size(); ++t) {
      blurry[t].insert(blurry[t].end(), pool.begin() + std::min(all, edges[t]),
                       pool.begin() + std::min(all, edges[t + 1]));
    }
  }

  const std::vector<int64_t>& labels_;
  int64_t classes_, tasks_;
  const BlurryConfig& config_;
  TorchDraws draws_;
  int64_t disjoint_;         // classes
  std::vector<Home> homes_;  // by class
};

}  // namespace

BlurryCut cut_blurry(const std::vector<int64_t>& labels, int64_t num_classes, int64_t tasks,
                     const BlurryConfig& config, uint32_t seed) {
  if (tasks > num_classes) {
    throw Error("stream.tasks: " + std::to_string(tasks) + " tasks cannot share " +
                std::to_string(num_classes) + " classes; each needs at least one");
  }
  BlurryDraw draw(labels, num_classes, tasks, config, seed);
  if (!config.varied && draw.blurry_classes() % tasks != 0) {
    throw Error("stream.blurry: " + std::to_string(draw.blurry_classes()) +
                " blurry classes do not divide into " + std::to_string(tasks) +
                " equal tasks; change stream.tasks or blurry.disjoint, or set blurry.varied: true");
  }
  BlurryCut cut = draw.make();
  for (size_t t = 0; t < cut.images.size(); ++t) {
    if (!cut.images[t].empty()) continue;
    throw Error("stream.blurry: task " + std::to_string(t + 1) +
                " is drawn without images; take another blurry.seed, or varied: false");
  }
  return cut;
}

}  // namespace rep
