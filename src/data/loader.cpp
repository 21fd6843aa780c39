#include "data/loader.h"

#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "core/random.h"

namespace rep {
// Batch b lives in slot b modulo the ring's size. A worker claims the next batch when its slot is
// free, that is when the caller has finished with the batch one ring before; slots become full out
// of order and are handed out in order.
struct Loader::State {
  /// Room for one batch. The workers touch only the raw pointers: an ATen call there could
  /// allocate, and the peak of tensor bytes would then depend on timing.
  struct Slot {
    Slot(int64_t batch_size, int64_t side)
        : tensors{torch::empty({batch_size, 3, side, side}, torch::kFloat),
                  torch::empty({batch_size}, torch::kLong),
                  torch::empty({batch_size}, torch::kLong)},
          images(tensors.images.data_ptr<float>()),
          labels(tensors.labels.data_ptr<int64_t>()),
          indices(tensors.indices.data_ptr<int64_t>()) {}

    Batch tensors;
    float* images;
    int64_t* labels;
    int64_t* indices;
    bool full = false;         // filled by a worker, not yet given back by the caller
    std::exception_ptr error;  // what stopped the worker, instead
  };

  State(const Dataset& data, std::vector<Sample> order, Transform how, Options with)
      : dataset(data), samples(std::move(order)), transform(how), options(with) {
    TORCH_CHECK(options.batch_size > 0 && options.workers > 0, "Loader: batch_size ",
                options.batch_size, ", workers ", options.workers);
    const auto size = static_cast<int64_t>(samples.size());
    last_batch = (options.drop_last ? size : size + options.batch_size - 1) / options.batch_size;
    TORCH_CHECK(options.first_batch >= 0, "Loader: first_batch ", options.first_batch);
    next_claim = next_out = std::min(options.first_batch, last_batch);
    // The same ring whichever batch comes first: a resumed epoch weighs what a whole one does.
    const int64_t ring = std::min(options.workers + 2, last_batch);
    slots.reserve(static_cast<size_t>(ring));
    for (int64_t i = 0; i < ring; ++i) {
      slots.emplace_back(std::min(options.batch_size, size), transform.size());
    }
    try {
      for (int64_t i = 0; i < std::min(options.workers, last_batch - next_out); ++i) {
        threads.emplace_back([this] { work(); });
      }
    } catch (...) {
      stop();
      throw;
    }
  }
  ~State() { stop(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    for (std::thread& thread : threads) thread.join();
    threads.clear();
  }

  Slot& slot_of(int64_t batch) { return slots[static_cast<size_t>(batch) % slots.size()]; }

  int64_t size_of(int64_t batch) const {
    const auto size = static_cast<int64_t>(samples.size());
    return std::min(options.batch_size, size - batch * options.batch_size);
  }

  /// A worker's life: claim, fill, publish, until there is nothing left.
  void work() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      changed.wait(lock, [this] {
        return stopping || next_claim == last_batch ||
               next_claim < next_out + static_cast<int64_t>(slots.size());
      });
      if (stopping || next_claim == last_batch) return;
      const int64_t batch = next_claim++;
      lock.unlock();
      std::exception_ptr error;
      try {
        fill(batch);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      slot_of(batch).error = error;
      slot_of(batch).full = true;
      changed.notify_all();
    }
  }

  void fill(int64_t batch) {
    Slot& slot = slot_of(batch);
    const int64_t pixels = 3 * transform.size() * transform.size();
    thread_local ImagePart part;
    for (int64_t i = 0; i < size_of(batch) && !stopping; ++i) {
      const Sample& sample = samples[static_cast<size_t>(batch * options.batch_size + i)];
      const Random random({options.seed, static_cast<uint64_t>(RandomUse::kAugmentation),
                           options.task, options.epoch, static_cast<uint64_t>(sample.index)});
      const View view = transform.fetch(dataset, sample.index, random, part);
      transform.apply(part, view, slot.images + i * pixels);
      slot.labels[i] = sample.label;
      slot.indices[i] = sample.index;
    }
  }

  const Dataset& dataset;
  const std::vector<Sample> samples;
  const Transform transform;
  const Options options;
  int64_t last_batch = 0;  // one past it

  std::vector<Slot> slots;
  std::mutex mutex;  // guards what follows, and Slot::full and Slot::error
  std::condition_variable changed;
  int64_t next_claim = 0;   // the first batch that no worker has taken
  int64_t next_out = 0;     // the first batch whose slot the caller still needs
  bool handed_out = false;  // whether the caller is looking at batch next_out
  std::atomic<bool> stopping{false};
  std::vector<std::thread> threads;
};

Loader::Loader(const Dataset& dataset, std::vector<Sample> samples, Transform transform,
               Options options)
    : state_(std::make_unique<State>(dataset, std::move(samples), transform, options)) {}

Loader::~Loader() = default;

int64_t Loader::num_batches() const { return state_->last_batch; }

bool Loader::next(Batch& batch) {
  State& s = *state_;
  std::unique_lock<std::mutex> lock(s.mutex);
  if (s.handed_out) {
    s.slot_of(s.next_out++).full = false;
    s.handed_out = false;
    s.changed.notify_all();
  }
  if (s.next_out == s.last_batch) return false;
  State::Slot& slot = s.slot_of(s.next_out);
  s.changed.wait(lock, [&] { return slot.full; });
  if (slot.error) std::rethrow_exception(slot.error);
  s.handed_out = true;
  const int64_t size = s.size_of(s.next_out);
  lock.unlock();
  batch.images = slot.tensors.images.narrow(0, 0, size);
  batch.labels = slot.tensors.labels.narrow(0, 0, size);
  batch.indices = slot.tensors.indices.narrow(0, 0, size);
  return true;
}

std::vector<Sample> shuffled(std::vector<Sample> samples, uint64_t seed, uint64_t task,
                             uint64_t epoch) {
  Random({seed, static_cast<uint64_t>(RandomUse::kEpochOrder), task, epoch}).shuffle(samples);
  return samples;
}

}  // namespace rep
