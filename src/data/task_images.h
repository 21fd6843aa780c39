#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/parallel.h"
#include "data/augment.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/stream.h"

namespace rep {

/// Moves the first `per_class` samples of every class to the front, the others behind them, both in
/// their order. Returns how many are in front.
int64_t put_first_of_each_class(std::vector<Sample>& samples, int64_t per_class);

/// The training images of the task in hand, for what a method does with them outside of the loop's
/// batches: statistics, buffers, generators. Images of any other task are refused, so that no
/// method can look back at what it did not store.
class TaskImages {
 public:
  struct Options {
    int64_t batch_size = 64;  // of each_batch: statistics do not depend on how a run tests
    int64_t workers = 1;      // threads that decode and view, in augment() the caller one of them
    int64_t seed = 42;
  };
  /// `train_view` is random, `test_view` the fixed view of statistics.
  TaskImages(const Dataset& train, Transform train_view, Transform test_view, Options options,
             torch::Device device);

  /// The task in hand from now on.
  void set_task(const Task& task);

  /// All training images of the stream: positions at and behind it are a method's own.
  int64_t size() const { return train_.size(); }
  /// Images of each_batch's batches.
  int64_t batch_size() const { return options_.batch_size; }
  /// An image as stored.
  Image image(int64_t index) const;
  /// Its label in the stream.
  int64_t label(int64_t index) const;
  /// `visit`s the samples in their order, a batch at a time, in the fixed view.
  void each_batch(const std::vector<Sample>& samples,
                  const std::function<void(const Batch&)>& visit) const;
  /// The same in random views, which are a function of the run's seed and `key`.
  void each_random_batch(const std::vector<Sample>& samples, uint64_t key,
                         const std::function<void(const Batch&)>& visit) const;
  /// What was spent, or is held.
  struct Spent {
    double macs = 0, seconds = 0;
    int64_t bytes = 0;
  };
  /// From now on these look at that many samples of each class only, or at `at_least` in all,
  /// and adds up what the others would have taken by `meter`'s reading: how a rehearsal
  /// (run/rehearsal.h) knows the cost of all in less time.
  void visit_only(int64_t per_class, int64_t at_least, std::function<Spent()> meter) {
    per_class_ = per_class;
    at_least_ = at_least;
    meter_ = std::move(meter);
  }
  /// Whether it is one: it takes few of a task's steps, and so leaves images that a run does not.
  bool is_rehearsal() const { return per_class_ > 0; }
  /// So far; `bytes`: that the visitors would have kept.
  const Spent& unvisited() const { return unvisited_; }

  /// `count` pictures of a method's own in random views, as a batch [B, 3, S, S]: `picture` gives
  /// the i-th, and is called by several threads at once. The views are a function of the run's seed
  /// and `key`.
  torch::Tensor augment(int64_t count, const std::function<Image(int64_t)>& picture,
                        uint64_t key) const;
  /// The same in the fixed view.
  torch::Tensor prepare(int64_t count, const std::function<Image(int64_t)>& picture) const;

 private:
  torch::Tensor view_all(int64_t count, const std::function<Image(int64_t)>& picture,
                         const Transform& view, uint64_t seed, uint64_t key) const;
  void visit_all(const std::vector<Sample>& samples, const Transform& view, uint64_t key,
                 const std::function<void(const Batch&)>& visit) const;

  const Dataset& train_;
  Transform train_view_, test_view_;
  Options options_;
  torch::Device device_;
  std::unique_ptr<Workers> workers_;
  std::vector<int64_t> labels_;           // [train_.size()]; -1: not of the task in hand
  int64_t per_class_ = 0, at_least_ = 0;  // of a rehearsal; 0: all
  std::function<Spent()> meter_;
  mutable Spent unvisited_;
};

}  // namespace rep
