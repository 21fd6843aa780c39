#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/random.h"
#include "data/dataset.h"
#include "data/stream.h"
#include "tensor/state.h"

namespace rep {

/// How much of the past a method keeps.
struct BufferOptions {
  int64_t buffer_size = 500;
  int64_t buffer_bytes = 0;
  std::string policy = "reservoir";
  template <class Visitor>
  void buffer_fields(Visitor&& visit, std::vector<std::string> policies) {
    visit("buffer_size", buffer_size, at_least(1), doc("Most stored images.", "images"));
    visit("buffer_bytes", buffer_bytes, at_least(0),
          doc("Most bytes of stored images; 0: no limit.", "bytes"));
    visit("policy", policy, one_of(std::move(policies)),
          doc("Which images are kept. reservoir: each of the stream with the same probability; "
              "class_balanced: an image of the largest class makes room; greedy: the same, but a "
              "full class takes no more; herding: those whose mean is nearest to the class's.",
              "",
              "reservoir: Vitter 1985; class_balanced: Chrysakis and Moens 2020; greedy: Prabhu et "
              "al. 2020; herding: arXiv 1611.07725"));
  }
};

/// Images of past tasks, as encoded pixels (PNG, so without loss): what a rehearsal method carries.
/// A data set itself, whose labels are positions in the stream's class order: its images go through
/// the same pipeline as any others.
///   reservoir       Vitter 1985: every image of the stream is kept with the same probability
///   class_balanced  Chrysakis & Moens 2020: a random image of the largest class makes room; one of
///                   a class that is among the largest replaces one of its own, with the
///                   probability of a reservoir of that class
///   greedy          GDumb (Prabhu et al. 2020): the same, but a full class takes no more
class ReplayBuffer final : public Dataset {
 public:
  struct Item {
    std::vector<uint8_t> png;
    int64_t label = 0;   // in the order of the stream
    int64_t index = 0;   // in the training set
    torch::Tensor note;  // what the method keeps with it (DER's logits), or undefined
  };

  ReplayBuffer(const BufferOptions& options, int64_t seed);

  /// Offers an image of the stream; `read` is called only when it is taken. The draws are a
  /// function of the seed and the images offered so far.
  template <class Read>
  void offer(int64_t label, int64_t index, const torch::Tensor& note, Read&& read) {
    const int64_t slot = slot_for(label);
    if (slot < 0) return;
    put(slot, {encode_png(read()), label, index, note.defined() ? note.detach().clone() : note});
  }
  /// Adds without asking, for methods that choose themselves (herding).
  void append(int64_t label, int64_t index, const Image& image);
  /// Keeps each class's first `quota` images, in the order in which they were added.
  void keep_first(int64_t quota);

  /// `count` different items (or all there are), a function of the seed and `key`.
  std::vector<int64_t> draw(int64_t count, uint64_t key) const;
  const Item& item(int64_t slot) const { return items_[static_cast<size_t>(slot)]; }
  int64_t bytes() const { return bytes_; }
  /// Bytes that state() lacks until as many images are stored as fit, of a stream of so many, each
  /// as large as those that are.
  int64_t bytes_until_full(int64_t images) const;

  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t slot) const override;
  std::string fingerprint() const override { return ""; }

  void state(State& s);

 private:
  /// Where an offered image goes: size() for a new place, or -1 for nowhere.
  int64_t slot_for(int64_t label);
  int64_t class_balanced_slot(int64_t label, Random& random, bool greedy);
  void know(int64_t label);  // every label of an item has its count
  void put(int64_t slot, Item item);
  void erase(int64_t slot);
  bool is_full() const;

  BufferOptions options_;
  uint64_t seed_;
  int64_t offered_ = 0;
  std::vector<int64_t> offered_by_class_;
  std::vector<Item> items_;
  int64_t bytes_ = 0;
  std::vector<int64_t> labels_;  // of the items
  std::vector<std::string> names_;
};

/// The images of `data`, and behind them those of `buffer`: what a method trains on that mixes its
/// exemplars into the task.
class WithBuffer final : public Dataset {
 public:
  WithBuffer(const Dataset& data, const ReplayBuffer& buffer);
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return data_.class_names(); }
  Image image(int64_t index) const override;
  std::string fingerprint() const override { return data_.fingerprint(); }

 private:
  const Dataset& data_;
  const ReplayBuffer& buffer_;
  std::vector<int64_t> labels_;
};

/// Rows of `features` [n, D] in the order in which herding picks them (Rebuffi et al. 2017): each
/// brings the mean of the picked as close as can be to the mean of all. `count` of them.
std::vector<int64_t> herding_order(const torch::Tensor& features, int64_t count);

}  // namespace rep
