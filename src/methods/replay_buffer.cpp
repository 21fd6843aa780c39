#include "methods/replay_buffer.h"

#include <algorithm>
#include <limits>

#include "tensor/torch.h"

namespace rep {

ReplayBuffer::ReplayBuffer(const BufferOptions& options, int64_t seed)
    : options_(options), seed_(static_cast<uint64_t>(seed)) {}

bool ReplayBuffer::is_full() const {
  if (size() >= options_.buffer_size) return true;
  // The next image is taken to be as large as the mean of those that are there.
  return options_.buffer_bytes > 0 && size() > 0 &&
         bytes_ + bytes_ / size() > options_.buffer_bytes;
}

int64_t ReplayBuffer::slot_for(int64_t label) {
  Random random(
      {seed_, static_cast<uint64_t>(RandomUse::kBuffer), static_cast<uint64_t>(offered_)});
  const int64_t before = offered_++;
  know(label);
  ++offered_by_class_[static_cast<size_t>(label)];
  if (!is_full()) return size();
  if (options_.policy != "reservoir") {
    return class_balanced_slot(label, random, options_.policy == "greedy");
  }
  const auto draw = static_cast<int64_t>(random.below(static_cast<uint64_t>(before) + 1));
  return draw < size() ? draw : -1;
}

int64_t ReplayBuffer::class_balanced_slot(int64_t label, Random& random, bool greedy) {
  std::vector<std::vector<int64_t>> slots(offered_by_class_.size());
  for (int64_t slot = 0; slot < size(); ++slot) {
    slots[static_cast<size_t>(labels_[static_cast<size_t>(slot)])].push_back(slot);
  }
  size_t most = 0;
  for (const auto& of_class : slots) most = std::max(most, of_class.size());
  const auto& own = slots[static_cast<size_t>(label)];
  const auto any = [&](const std::vector<int64_t>& list) {
    return list[static_cast<size_t>(random.below(list.size()))];
  };
  // Balanced but for one image: taking one more of this class would only turn the roles round.
  if (own.size() + 1 < most + (greedy ? 0 : 1) && own.size() < most) {
    std::vector<int64_t> largest;
    for (const auto& of_class : slots) {
      if (of_class.size() == most) largest.insert(largest.end(), of_class.begin(), of_class.end());
    }
    return any(largest);
  }
  if (greedy || own.empty()) return -1;
  const auto seen = static_cast<double>(offered_by_class_[static_cast<size_t>(label)]);
  return random.bernoulli(static_cast<double>(own.size()) / seen) ? any(own) : -1;
}

void ReplayBuffer::put(int64_t slot, Item item) {
  bytes_ += static_cast<int64_t>(item.png.size());
  const int64_t label = item.label;
  if (slot == size()) {
    items_.push_back(std::move(item));
    labels_.push_back(label);
  } else {
    Item& old = items_[static_cast<size_t>(slot)];
    bytes_ -= static_cast<int64_t>(old.png.size());
    old = std::move(item);
    labels_[static_cast<size_t>(slot)] = label;
  }
  // A larger image than the one it replaced may not fit: others make room.
  while (options_.buffer_bytes > 0 && bytes_ > options_.buffer_bytes && size() > 0) {
    Random random({seed_, static_cast<uint64_t>(RandomUse::kBuffer),
                   static_cast<uint64_t>(offered_), static_cast<uint64_t>(size())});
    erase(static_cast<int64_t>(random.below(static_cast<uint64_t>(size()))));
  }
}

void ReplayBuffer::erase(int64_t slot) {
  bytes_ -= static_cast<int64_t>(items_[static_cast<size_t>(slot)].png.size());
  items_.erase(items_.begin() + slot);
  labels_.erase(labels_.begin() + slot);
}

void ReplayBuffer::know(int64_t label) {
  const auto least = static_cast<size_t>(label) + 1;
  if (offered_by_class_.size() < least) offered_by_class_.resize(least, 0);
}

void ReplayBuffer::append(int64_t label, int64_t index, const Image& image) {
  know(label);
  put(size(), {encode_png(image), label, index, {}});
}

void ReplayBuffer::keep_first(int64_t quota) {
  std::vector<int64_t> kept;
  std::vector<Item> items;
  std::vector<int64_t> labels;
  bytes_ = 0;
  for (Item& item : items_) {
    const auto label = static_cast<size_t>(item.label);
    if (kept.size() <= label) kept.resize(label + 1, 0);
    if (++kept[label] > quota) continue;
    bytes_ += static_cast<int64_t>(item.png.size());
    labels.push_back(item.label);
    items.push_back(std::move(item));
  }
  items_ = std::move(items);
  labels_ = std::move(labels);
}

std::vector<int64_t> ReplayBuffer::draw(int64_t count, uint64_t key) const {
  std::vector<int64_t> slots(items_.size());
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int64_t>(i);
  Random random({seed_, static_cast<uint64_t>(RandomUse::kReplayDraw), key});
  const auto wanted = std::min(static_cast<size_t>(count), slots.size());
  for (size_t i = 0; i < wanted; ++i) {
    std::swap(slots[i], slots[i + static_cast<size_t>(random.below(slots.size() - i))]);
  }
  slots.resize(wanted);
  return slots;
}

Image ReplayBuffer::image(int64_t slot) const {
  const auto& png = item(slot).png;
  return decode_image(png.data(), png.size(), "a stored image");
}

namespace {

[[noreturn]] void cut_off() {
  throw Error(
      "checkpoint: the replay buffer's images, sizes and labels do not belong together; remove the "
      "checkpoint to start anew");
}

// What a checkpoint gave, before anything is read by it.
void check_stored(const torch::Tensor& pixels, const torch::Tensor& sizes,
                  const torch::Tensor& labels, const torch::Tensor& indices,
                  const torch::Tensor& notes) {
  const auto is_list = [](const torch::Tensor& t, torch::ScalarType type) {
    return t.defined() && t.dim() == 1 && t.scalar_type() == type && t.is_contiguous();
  };
  if (!is_list(pixels, torch::kByte) || !is_list(sizes, torch::kLong)) cut_off();
  for (const auto& list : {labels, indices}) {
    if (!is_list(list, torch::kLong) || list.size(0) != sizes.size(0)) cut_off();
  }
  if (notes.defined() && (notes.dim() == 0 || notes.size(0) != sizes.size(0))) cut_off();
}

std::vector<int64_t> read_counts(const Json& json) {
  try {
    return json.get<std::vector<int64_t>>();
  } catch (const Json::exception&) {
    cut_off();
  }
}

}  // namespace

int64_t ReplayBuffer::bytes_until_full(int64_t images) const {
  const int64_t full = std::min(options_.buffer_size, images);
  if (size() == 0 || full <= size()) return 0;
  const auto grown = [&](int64_t bytes) { return bytes * full / size(); };
  const torch::Tensor& note = items_.front().note;
  const int64_t notes =
      note.defined() ? size() * note.numel() * static_cast<int64_t>(note.element_size()) : 0;
  int64_t pixels = grown(bytes_);
  if (options_.buffer_bytes > 0) pixels = std::min(pixels, options_.buffer_bytes);
  const int64_t numbers = 3 * size() * static_cast<int64_t>(sizeof(int64_t));
  return std::max<int64_t>(0, pixels - bytes_) + grown(numbers) - numbers + grown(notes) - notes;
}

void ReplayBuffer::state(State& s) {
  torch::Tensor pixels, sizes, labels, indices, notes;
  if (!s.loading()) {
    const bool noted = !items_.empty() && items_.front().note.defined();
    pixels = torch::empty({bytes_}, torch::kByte);
    sizes = torch::empty({size()}, torch::kLong);
    labels = sizes.clone();
    indices = sizes.clone();
    std::vector<torch::Tensor> rows;
    uint8_t* target = pixels.data_ptr<uint8_t>();
    for (int64_t i = 0; i < size(); ++i) {
      target = std::copy(item(i).png.begin(), item(i).png.end(), target);
      sizes.data_ptr<int64_t>()[i] = static_cast<int64_t>(item(i).png.size());
      labels.data_ptr<int64_t>()[i] = item(i).label;
      indices.data_ptr<int64_t>()[i] = item(i).index;
      if (noted) rows.push_back(item(i).note.cpu());
    }
    if (noted) notes = torch::stack(rows);
  }
  s.on_cpu("pixels", pixels);
  s.on_cpu("sizes", sizes);
  s.on_cpu("labels", labels);
  s.on_cpu("indices", indices);
  s.on_cpu("notes", notes);
  s("offered", offered_);
  Json by_class = offered_by_class_;
  s("offered_by_class", by_class);
  if (!s.loading()) return;

  check_stored(pixels, sizes, labels, indices, notes);
  offered_by_class_ = read_counts(by_class);
  items_.clear();
  labels_.clear();
  bytes_ = 0;
  const uint8_t* source = pixels.data_ptr<uint8_t>();
  for (int64_t i = 0; i < sizes.size(0); ++i) {
    const int64_t length = sizes.data_ptr<int64_t>()[i], label = labels.data_ptr<int64_t>()[i];
    // The length first: bytes_ + length could run over.
    if (length < 0 || length > pixels.numel() - bytes_ || label < 0 ||
        label >= static_cast<int64_t>(offered_by_class_.size())) {
      cut_off();
    }
    put(size(),
        {std::vector<uint8_t>(source + bytes_, source + bytes_ + length), label,
         indices.data_ptr<int64_t>()[i], notes.defined() ? notes[i].clone() : torch::Tensor()});
  }
  if (bytes_ != pixels.numel()) cut_off();
}

WithBuffer::WithBuffer(const Dataset& data, const ReplayBuffer& buffer)
    : data_(data), buffer_(buffer), labels_(data.labels()) {
  labels_.insert(labels_.end(), buffer.labels().begin(), buffer.labels().end());
}

Image WithBuffer::image(int64_t index) const {
  return index < data_.size() ? data_.image(index) : buffer_.image(index - data_.size());
}

std::vector<int64_t> herding_order(const torch::Tensor& features, int64_t count) {
  const torch::Tensor rows = features.to(torch::kDouble);
  const torch::Tensor mean = rows.mean(0);
  torch::Tensor sum = torch::zeros_like(mean);
  torch::Tensor free = torch::zeros({rows.size(0)}, rows.options());
  std::vector<int64_t> order;
  for (int64_t k = 0; k < std::min(count, rows.size(0)); ++k) {
    const torch::Tensor candidates = (rows + sum) / static_cast<double>(k + 1);
    const torch::Tensor distance = (candidates - mean).square().sum(1) + free;
    const int64_t next = distance.argmin().item<int64_t>();
    free[next] = std::numeric_limits<double>::infinity();
    sum += rows[next];
    order.push_back(next);
  }
  return order;
}

}  // namespace rep
