#include "data/loader.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/random.h"
#include "data/device_images.h"

namespace rep {
namespace {

/// The data set's images on the device where the batches are wanted, if it has them there.
const DeviceImages* images_on(const torch::Device& device, const Dataset& dataset) {
  const auto* const there = dynamic_cast<const DeviceImages*>(&dataset);
  return there && there->pixels().device() == device ? there : nullptr;
}

}  // namespace

// Batch b lives in slot b modulo the ring's size. A worker claims the next batch when its slot is
// free, that is when the caller has finished with the batch one ring before; slots become full out
// of order and are handed out in order.
struct Loader::State {
  /// Copies to the device that the host does not wait for; on the CPU everything is there already.
  /// LibTorch's device-neutral events need no header or library of CUDA's.
  class Transfer {
   public:
    explicit Transfer(const torch::Device& device) : device_(device) {}
    bool is_from_pinned_memory() const { return device_.is_cuda(); }

    torch::Tensor send(const torch::Tensor& rows) const {
      return rows.to(device_, rows.scalar_type(), /*non_blocking=*/true);
    }
    /// After the last send() of a batch.
    void mark_end() {
      if (!is_from_pinned_memory()) return;
      if (!end_) end_.emplace(device_.type());
      end_->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
    }
    /// Until the copies before mark_end() are done; not until what was computed since is. By then
    /// the device has that to do, so that looking now and then (1.13's events cannot be waited for)
    /// does not hold it up.
    void wait() const {
      while (end_ && !end_->query()) std::this_thread::sleep_for(std::chrono::microseconds(20));
    }

   private:
    torch::Device device_;
    std::optional<c10::Event> end_;
  };

  /// Room for one batch. The workers touch only the raw pointers: an ATen call there could
  /// allocate, and the peak of tensor bytes would then depend on timing.
  struct Slot {
    Slot(const std::vector<int64_t>& sizes, bool pinned)
        : tensors{torch::empty(sizes, torch::dtype(torch::kFloat).pinned_memory(pinned)),
                  torch::empty({sizes[0]}, torch::dtype(torch::kLong).pinned_memory(pinned)),
                  torch::empty({sizes[0]}, torch::dtype(torch::kLong).pinned_memory(pinned))},
          images(tensors.images.data_ptr<float>()),
          labels(tensors.labels.data_ptr<int64_t>()),
          indices(tensors.indices.data_ptr<int64_t>()) {}

    Batch tensors;  // instead of images, where these are on the device, their views' weights
    float* images;
    int64_t* labels;
    int64_t* indices;
    bool full = false;         // filled by a worker, not yet given back by the caller
    std::exception_ptr error;  // what stopped the worker, instead
  };

  State(const Dataset& data, std::vector<Sample> order, Transform how, Options with)
      : dataset(data),
        samples(std::move(order)),
        transform(how),
        options(with),
        transfer(with.device),
        on_device(images_on(with.device, data)) {
    TORCH_CHECK(options.batch_size > 0 && options.workers > 0, "Loader: batch_size ",
                options.batch_size, ", workers ", options.workers);
    const auto size = static_cast<int64_t>(samples.size());
    last_batch = batches(size, options.batch_size, options.drop_last);
    TORCH_CHECK(options.first_batch >= 0, "Loader: first_batch ", options.first_batch);
    next_claim = next_out = std::min(options.first_batch, last_batch);
    // The same ring whichever batch comes first: a resumed epoch weighs what a whole one does.
    const int64_t ring = std::min(batches_in_flight(options.workers), last_batch);
    const int64_t batch_size = std::min(options.batch_size, size), side = transform.size();
    std::vector<int64_t> sizes{batch_size, 3, side, side};
    if (on_device) {
      sizes = {batch_size, side, 2 * on_device->side()};
      values = torch::from_blob(const_cast<float*>(transform.values()), {3, 256}, torch::kFloat)
                   .to(options.device, torch::kFloat, /*non_blocking=*/false, /*copy=*/true);
    }
    slots.reserve(static_cast<size_t>(ring));
    for (int64_t i = 0; i < ring; ++i) slots.emplace_back(sizes, transfer.is_from_pinned_memory());
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
    const int64_t side = on_device ? on_device->side() : 0;
    const int64_t numbers = transform.size() * (on_device ? 2 * side : 3 * transform.size());
    thread_local ImagePart part;
    const int64_t size = size_of(batch);
    const auto [first, last] = options.part ? options.part(size) : std::pair{int64_t{0}, size};
    for (int64_t i = 0; i < size && !stopping; ++i) {
      const Sample& sample = samples[static_cast<size_t>(batch * options.batch_size + i)];
      slot.labels[i] = sample.label;
      slot.indices[i] = sample.index;
      if (i < first || i >= last) continue;
      const Random random({options.seed, static_cast<uint64_t>(RandomUse::kAugmentation),
                           options.task, options.epoch, static_cast<uint64_t>(sample.index)});
      if (on_device) {
        transform.weigh(transform.draw(side, side, random), side, side, slot.images + i * numbers);
      } else {
        const View view = transform.fetch(dataset, sample.index, random, part);
        transform.apply(part, view, slot.images + i * numbers);
      }
    }
  }

  const Dataset& dataset;
  const std::vector<Sample> samples;
  const Transform transform;
  const Options options;
  Transfer transfer;              // of the batch handed out; the caller's thread alone uses it
  const DeviceImages* on_device;  // null: workers make the images
  torch::Tensor values;           // Transform's, on the device; undefined where it is not needed
  int64_t last_batch = 0;         // one past it

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

bool Loader::next(Batch& batch) {
  State& s = *state_;
  s.transfer.wait();  // a worker may overwrite the slot once it is given back
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
  batch.images = s.transfer.send(slot.tensors.images.narrow(0, 0, size));
  batch.labels = s.transfer.send(slot.tensors.labels.narrow(0, 0, size));
  batch.indices = slot.tensors.indices.narrow(0, 0, size);
  const torch::Tensor indices = s.on_device ? s.transfer.send(batch.indices) : torch::Tensor();
  s.transfer.mark_end();
  if (s.on_device) {
    batch.images = view_batch(s.on_device->pixels(), indices, batch.images, s.values);
  }
  return true;
}

std::vector<Sample> shuffled(std::vector<Sample> samples, uint64_t seed, uint64_t task,
                             uint64_t epoch) {
  Random({seed, static_cast<uint64_t>(RandomUse::kEpochOrder), task, epoch}).shuffle(samples);
  return samples;
}

}  // namespace rep
