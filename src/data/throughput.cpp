#include "data/throughput.h"

#include <algorithm>
#include <ctime>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace rep {
namespace {

double thread_ms() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
}

struct Pass {
  double total = 0, stored = 0;  // ms
};

Pass time_pass(const Dataset& dataset, const Transform& transform, int64_t images, uint64_t seed,
               uint64_t number, std::vector<float>& batch) {
  const auto input = batch.size() / static_cast<size_t>(images);
  Pass pass;
  ImagePart part;
  for (int64_t i = 0; i < images; ++i) {
    const int64_t index = i * dataset.size() / images;
    const Random random({seed, static_cast<uint64_t>(RandomUse::kAugmentation), 0, number,
                         static_cast<uint64_t>(index)});
    const double start = thread_ms();
    const View view = transform.fetch(dataset, index, random, part);
    const double stored = thread_ms();
    transform.apply(part, view, batch.data() + static_cast<size_t>(i) * input);
    pass.total += thread_ms() - start;
    pass.stored += stored - start;
  }
  return pass;
}

}  // namespace

Throughput time_view(const Dataset& dataset, const Transform& transform, int64_t images,
                     int64_t passes, uint64_t seed) {
  Throughput result;
  result.images = std::min(images, dataset.size());
  if (result.images == 0) throw Error("dataset: no images to measure; raise the limits");
  // A batch at a time, as in the loader: inputs that stay in the cache would flatter.
  const auto input = static_cast<size_t>(3 * transform.size() * transform.size());
  std::vector<float> batch(static_cast<size_t>(result.images) * input);
  std::vector<Pass> all;
  for (int64_t number = 0; number <= passes; ++number) {
    all.push_back(
        time_pass(dataset, transform, result.images, seed, static_cast<uint64_t>(number), batch));
  }
  all.erase(all.begin());  // the warm-up
  std::sort(all.begin(), all.end(), [](const Pass& a, const Pass& b) { return a.total < b.total; });
  const auto count = static_cast<double>(result.images);
  result.best_ms = all.front().total / count;
  result.median_ms = all[all.size() / 2].total / count;
  result.stored_ms = all.front().stored / count;
  return result;
}

}  // namespace rep
