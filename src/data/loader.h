#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "data/augment.h"
#include "data/dataset.h"
#include "data/stream.h"

namespace rep {

/// What the learner gets.
struct Batch {
  torch::Tensor images;   // float [B, 3, S, S], normalised
  torch::Tensor labels;   // int64 [B], in the order of the stream
  torch::Tensor indices;  // int64 [B], positions in the data set; always on the CPU
  int64_t size() const { return labels.size(0); }
};

/// Hands out batches that worker threads prepare ahead, in order. A batch is a function of the
/// samples and `keys` alone: the same whatever the number of workers, and reachable from any
/// `first_batch`. Memory is a fixed ring of buffers, so peak bytes do not depend on timing.
///
/// For a GPU the ring is pinned memory, from which a batch is copied while the caller goes on. Of
/// DeviceImages (data/device_images.h) on that device the workers prepare only what makes the views
/// there, of the same bits.
class Loader {
 public:
  struct Options {
    int64_t batch_size = 16;
    int64_t workers = 1;
    bool drop_last = false;
    int64_t first_batch = 0;                 // for a resume
    torch::Device device = torch::kCPU;      // where images and labels are wanted
    uint64_t seed = 0, task = 0, epoch = 0;  // keys of the augmentation's random numbers
    /// Of a batch of n images those that are wanted, [first, second): the others' rows of `images`
    /// hold anything. Empty: all.
    std::function<std::pair<int64_t, int64_t>(int64_t n)> part;
  };
  /// `samples` in the order in which they shall come.
  Loader(const Dataset& dataset, std::vector<Sample> samples, Transform transform, Options options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Batches of an epoch over so many images. `drop_last` leaves out a last one that is not full,
  /// but what is less than one batch is a batch.
  static int64_t batches(int64_t images, int64_t batch_size, bool drop_last) {
    if (drop_last && images >= batch_size) return images / batch_size;
    return (images + batch_size - 1) / batch_size;
  }
  /// Batches that are held at once: one with the caller, one waiting, one with each worker.
  static int64_t batches_in_flight(int64_t workers) { return workers + 2; }

  /// The next batch, valid until the next call; false at the end. Rethrows what a worker threw.
  bool next(Batch& batch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The samples of an epoch in their shuffled order: a function of seed, task and epoch.
std::vector<Sample> shuffled(std::vector<Sample> samples, uint64_t seed, uint64_t task,
                             uint64_t epoch);

}  // namespace rep
