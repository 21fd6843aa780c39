// Rehearsal: what a buffer keeps, what herding picks, what DER's loss is.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <numeric>
#include <set>
#include <thread>

#include "methods/method.h"
#include "methods/replay_buffer.h"
#include "tensor/optimizer.h"
#include "tensor/torch.h"

namespace rep {
namespace {

Image grey(uint8_t value, int64_t side = 4) {
  Image image = Image::make(side, side);
  std::fill(image.pixels.begin(), image.pixels.end(), value);
  return image;
}

ReplayBuffer make_buffer(const std::string& policy, int64_t size, int64_t seed = 1,
                         int64_t bytes = 0) {
  BufferOptions options;
  options.policy = policy;
  options.buffer_size = size;
  options.buffer_bytes = bytes;
  return ReplayBuffer(options, seed);
}

void offer(ReplayBuffer& buffer, int64_t label, int64_t index) {
  buffer.offer(label, index, {}, [&] { return grey(static_cast<uint8_t>(index % 256)); });
}

// 10,000 streams of 20 images into 5 places: each image is kept in a quarter of them.
TEST(Reservoir, KeepsEveryImageWithTheSameProbability) {
  constexpr int64_t kRuns = 10000, kImages = 20, kPlaces = 5;
  std::vector<int64_t> kept(kImages, 0);
  for (int64_t run = 0; run < kRuns; ++run) {
    ReplayBuffer buffer = make_buffer("reservoir", kPlaces, run);
    for (int64_t i = 0; i < kImages; ++i) offer(buffer, 0, i);
    ASSERT_EQ(buffer.size(), kPlaces);
    for (int64_t slot = 0; slot < kPlaces; ++slot) {
      ++kept[static_cast<size_t>(buffer.item(slot).index)];
    }
  }
  const double expected = static_cast<double>(kRuns * kPlaces) / kImages;
  double chi_square = 0;
  for (const int64_t count : kept) {
    chi_square += std::pow(static_cast<double>(count) - expected, 2) / expected;
  }
  // 19 degrees of freedom: above 43.8 with probability 0.001 (places are drawn without
  // replacement, which makes the statistic smaller, not larger).
  EXPECT_LT(chi_square, 43.8);
  EXPECT_GT(chi_square, 1);
}

TEST(ReplayBuffer, DrawsDifferentItemsUniformlyAndReproducibly) {
  ReplayBuffer buffer = make_buffer("reservoir", 10);
  for (int64_t i = 0; i < 10; ++i) offer(buffer, i, i);
  std::vector<int64_t> drawn(10, 0);
  for (uint64_t key = 0; key < 2000; ++key) {
    const auto slots = buffer.draw(3, key);
    ASSERT_EQ(std::set<int64_t>(slots.begin(), slots.end()).size(), 3U);
    EXPECT_EQ(slots, buffer.draw(3, key));
    for (const int64_t slot : slots) ++drawn[static_cast<size_t>(slot)];
  }
  for (const int64_t count : drawn) EXPECT_NEAR(static_cast<double>(count), 600, 100);
  EXPECT_EQ(buffer.draw(99, 0).size(), 10U);
}

TEST(ClassBalanced, KeepsAsManyOfARareClassAsOfAFrequentOne) {
  ReplayBuffer buffer = make_buffer("class_balanced", 30);
  for (int64_t i = 0; i < 1000; ++i) offer(buffer, 0, i);
  for (int64_t i = 0; i < 10; ++i) offer(buffer, 1, 1000 + i);
  for (int64_t i = 0; i < 200; ++i) offer(buffer, 2, 2000 + i);
  std::map<int64_t, int64_t> count;
  for (const int64_t label : buffer.labels()) ++count[label];
  EXPECT_EQ(count[0], 10);
  EXPECT_EQ(count[1], 10);
  EXPECT_EQ(count[2], 10);
  // Of a class that is full, late images replace early ones as in a reservoir.
  bool late = false;
  for (int64_t slot = 0; slot < buffer.size(); ++slot) {
    late |= buffer.item(slot).label == 2 && buffer.item(slot).index >= 2050;
  }
  EXPECT_TRUE(late);
}

TEST(Greedy, TakesNoMoreOfAFullClass) {
  ReplayBuffer buffer = make_buffer("greedy", 12);
  for (int64_t label = 0; label < 3; ++label) {
    for (int64_t i = 0; i < 100; ++i) offer(buffer, label, 100 * label + i);
  }
  std::map<int64_t, int64_t> count;
  for (const int64_t label : buffer.labels()) ++count[label];
  for (int64_t label = 0; label < 3; ++label) EXPECT_NEAR(count[label], 4, 1) << label;
  EXPECT_EQ(buffer.size(), 12);
}

TEST(ReplayBuffer, StaysWithinItsBytes) {
  const auto one = static_cast<int64_t>(encode_png(grey(0)).size());
  ReplayBuffer buffer = make_buffer("reservoir", 1000, 1, 10 * one);
  Random noise({3});
  for (int64_t i = 0; i < 200; ++i) {
    buffer.offer(0, i, {}, [&] {
      Image image = grey(0, 4 + static_cast<int64_t>(noise.below(12)));
      for (auto& byte : image.pixels) byte = static_cast<uint8_t>(noise.below(256));
      return image;
    });
    ASSERT_LE(buffer.bytes(), 10 * one) << i;
  }
  EXPECT_GT(buffer.size(), 0);
}

TEST(ReplayBuffer, KeepsPixelsExactlyAndComesBackFromItsState) {
  ReplayBuffer buffer = make_buffer("reservoir", 8);
  Random noise({4});
  std::map<int64_t, Image> originals;
  for (int64_t i = 0; i < 40; ++i) {
    buffer.offer(i % 3, i, torch::full({2}, static_cast<float>(i)), [&] {
      Image image = Image::make(5, 7);
      for (auto& byte : image.pixels) byte = static_cast<uint8_t>(noise.below(256));
      return originals[i] = image;
    });
  }
  State saved;
  buffer.state(saved);
  EXPECT_GE(saved.bytes(), buffer.bytes());
  ReplayBuffer other = make_buffer("reservoir", 8);
  State given(saved.tensors(), saved.values());
  other.state(given);
  ASSERT_EQ(other.size(), 8);
  EXPECT_EQ(other.bytes(), buffer.bytes());
  for (int64_t slot = 0; slot < 8; ++slot) {
    const auto& item = other.item(slot);
    EXPECT_EQ(item.label, item.index % 3);
    EXPECT_EQ(other.labels()[static_cast<size_t>(slot)], item.label);
    EXPECT_EQ(other.image(slot).pixels, originals[item.index].pixels);
    EXPECT_EQ(other.image(slot).height, 5);
    EXPECT_TRUE(item.note.equal(torch::full({2}, static_cast<float>(item.index))));
  }
  for (int64_t i = 40; i < 80; ++i) {  // and goes on alike
    offer(buffer, 0, i);
    offer(other, 0, i);
  }
  for (int64_t slot = 0; slot < 8; ++slot) {
    EXPECT_EQ(other.item(slot).index, buffer.item(slot).index);
  }
}

// A checkpoint whose entries are not of one length, or point outside.
TEST(ReplayBuffer, RefusesACutCheckpointInASentence) {
  ReplayBuffer buffer = make_buffer("reservoir", 8);
  for (int64_t i = 0; i < 6; ++i) {
    buffer.offer(i % 3, i, torch::full({2}, 1.f), [] { return grey(0); });
  }
  State saved;
  buffer.state(saved);
  using Change = std::function<torch::Tensor(const torch::Tensor&)>;
  const auto with = [&](const std::string& name, const Change& change) {
    NamedTensors tensors;
    for (const auto& [key, tensor] : saved.tensors()) {
      tensors.emplace_back(key, key == name ? change(tensor) : tensor);
    }
    return State(tensors, saved.values());
  };
  const auto shorter = [](const torch::Tensor& t) { return t.narrow(0, 0, t.size(0) - 1); };
  const auto floats = [](const torch::Tensor& t) { return t.to(torch::kFloat); };
  const auto wild = [](const torch::Tensor& t) {
    torch::Tensor copy = t.clone();
    copy[1] = std::numeric_limits<int64_t>::max();
    return copy;
  };
  std::vector<std::pair<std::string, State>> cases;
  for (const char* name : {"pixels", "sizes", "labels", "indices", "notes"}) {
    cases.emplace_back(std::string(name) + " shorter", with(name, shorter));
  }
  for (const char* name : {"sizes", "labels"}) {
    cases.emplace_back(std::string(name) + " floats", with(name, floats));
    cases.emplace_back(std::string(name) + " wild", with(name, wild));
  }
  Json values = saved.values();
  values["offered_by_class"] = "none";
  cases.emplace_back("counts are a word", State(saved.tensors(), values));
  for (auto& [what, state] : cases) {
    SCOPED_TRACE(what);
    ReplayBuffer other = make_buffer("reservoir", 8);
    try {
      other.state(state);
      ADD_FAILURE() << "taken";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("do not belong together; remove the checkpoint"),
                std::string::npos);
    }
  }
}

TEST(Herding, PicksWhatBringsTheMeanClosest) {
  // Mean (1, 0). Nearest first: (1, 0) itself; then the pair's mean must stay: (0, 1) and (2, -1)
  // balance each other, (5, 5) and (-3, -5) are far. By hand.
  const torch::Tensor points =
      torch::tensor({{5.0, 5.0}, {1.0, 0.0}, {0.0, 1.0}, {2.0, -1.0}, {-3.0, -5.0}});
  EXPECT_EQ(herding_order(points, 3), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(herding_order(points, 9).size(), 5U);
}

TEST(ReplayBuffer, KeepsTheFirstOfEveryClass) {
  ReplayBuffer buffer = make_buffer("herding", 100);
  for (int64_t i = 0; i < 12; ++i) buffer.append(i / 6, i, grey(0));
  buffer.keep_first(2);
  std::vector<int64_t> indices;
  for (int64_t slot = 0; slot < buffer.size(); ++slot) indices.push_back(buffer.item(slot).index);
  EXPECT_EQ(indices, (std::vector<int64_t>{0, 1, 6, 7}));
}

// Four grey images of two classes, and a method on a small ViT.
class Greys final : public Dataset {
 public:
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  Image image(int64_t index) const override { return grey(static_cast<uint8_t>(60 * index), 32); }
  std::string fingerprint() const override { return "greys"; }

 private:
  std::vector<int64_t> labels_{0, 0, 1, 1};
  std::vector<std::string> names_{"dark", "light"};
};

struct Rig {
  explicit Rig(const std::string& yaml) : section{"", YAML::Load(yaml), "", {}} {
    section.name = section.node["name"].as<std::string>();
    torch::manual_seed(1);
    vit = VisionTransformer(vit_options("vit_nano"));
    vit->train_last_blocks(0);
    efficiency =
        std::make_unique<Efficiency>(EfficiencyConfig{}, vit.ptr(), VisionTransformer{nullptr}, 5);
    method = Registry<MethodKind>::get()
                 .at(section.name)
                 .value.make({section, vit.ptr(), *efficiency, images, 2, 1, 5, torch::kCPU, ""});
    task.classes = {0, 1};
    task.train = {{0, 0}, {1, 0}, {2, 1}, {3, 1}};
    images.set_task(task);
    method->begin_task(task);
  }
  Batch batch() {
    Batch all;
    images.each_batch(task.train, [&](const Batch& b) {
      all = {b.images.clone(), b.labels.clone(), b.indices.clone()};
    });
    return all;
  }
  Greys data;
  Section section;
  Transform view{"none", 32, {}, false};
  TaskImages images{data, view, view, TaskImages::Options{}, torch::Device(torch::kCPU)};
  VisionTransformer vit{nullptr};
  std::unique_ptr<Efficiency> efficiency;
  std::unique_ptr<Method> method;
  Task task;
};

// With every image in the buffer and the head moved by a known step, alpha's term is the mean
// squared difference of two known logit matrices.
TEST(Der, PullsLogitsBackToWhatTheyWere) {
  Rig rig("{name: der, alpha: 0.7, buffer_size: 10, replay_batch: 4}");
  const Batch batch = rig.batch();
  torch::NoGradGuard no_grad;
  const torch::Tensor before = rig.method->predict(batch);
  const double plain = rig.method->loss(batch).item<double>();
  EXPECT_NEAR(plain, torch::cross_entropy_loss(before, batch.labels).item<double>(), 1e-6);
  rig.method->after_step();  // stores the four images with their logits
  for (auto& parameter : rig.method->parameters()) {
    parameter.add_(torch::linspace(-0.1, 0.2, parameter.numel()).view_as(parameter));
  }
  const torch::Tensor now = rig.method->predict(batch);
  const double expected = torch::cross_entropy_loss(now, batch.labels).item<double>() +
                          0.7 * (now - before).square().mean().item<double>();
  EXPECT_NEAR(rig.method->loss(batch).item<double>(), expected, 1e-5);
}

TEST(Derpp, AlsoClassifiesASecondDraw) {
  Rig der("{name: der, buffer_size: 10, replay_batch: 4}");
  Rig derpp("{name: derpp, beta: 0.5, buffer_size: 10, replay_batch: 4}");
  const Batch batch = der.batch();
  torch::NoGradGuard no_grad;
  for (Rig* rig : {&der, &derpp}) {
    rig->method->loss(batch);
    rig->method->after_step();
  }
  const double ce =
      torch::cross_entropy_loss(derpp.method->predict(batch), batch.labels).item<double>();
  // All four images are drawn, in whatever order: the second draw's cross-entropy is the batch's.
  EXPECT_NEAR(derpp.method->loss(batch).item<double>(),
              der.method->loss(batch).item<double>() + 0.5 * ce, 1e-5);
}

TEST(Er, TrainsOnTheBatchAndItsDrawAlike) {
  Rig rig("{name: er, buffer_size: 10, replay_batch: 2}");
  const Batch batch = rig.batch();
  torch::NoGradGuard no_grad;
  rig.method->loss(batch);
  rig.method->after_step();
  const torch::Tensor each =
      torch::cross_entropy_loss(rig.method->predict(batch), batch.labels, {}, at::Reduction::None);
  // Two of the four images count twice: the mean over six lies between these bounds, and equals
  // one of the six possible pairs' values.
  const double loss = rig.method->loss(batch).item<double>();
  bool found = false;
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = i + 1; j < 4; ++j) {
      const double pair = (each.sum() + each[i] + each[j]).item<double>() / 6;
      found |= std::abs(pair - loss) < 1e-5;
    }
  }
  EXPECT_TRUE(found);
}

// Stored images are decoded and viewed by several threads, to the same bits as by one.
TEST(TaskImages, ArePreparedBySeveralThreadsToTheSameBits) {
  const Greys data;
  const Transform view("l2p", 32, {}, /*train=*/true);
  const auto views_by = [&](int64_t workers, const std::function<Image(int64_t)>& picture) {
    TaskImages::Options options;
    options.workers = workers;
    return TaskImages(data, view, view, options, torch::Device(torch::kCPU)).augment(8, picture, 3);
  };
  std::mutex mutex;
  std::set<std::thread::id> threads;
  const auto together = [&](int64_t i) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      threads.insert(std::this_thread::get_id());
    }
    for (int wait = 0; wait < 2000; ++wait) {  // until another thread has one, too
      {
        const std::lock_guard<std::mutex> lock(mutex);
        if (threads.size() > 1) break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return grey(static_cast<uint8_t>(20 * i), 40);
  };
  const torch::Tensor several = views_by(3, together);
  EXPECT_GT(threads.size(), 1U);
  const auto alone = [](int64_t i) { return grey(static_cast<uint8_t>(20 * i), 40); };
  EXPECT_TRUE(torch::equal(several, views_by(1, alone)));
  const auto broken = [&](int64_t i) -> Image {
    if (i == 5) throw std::bad_alloc();
    return grey(0, 40);
  };
  EXPECT_THROW(views_by(3, broken), std::bad_alloc);
}

TEST(TaskImages, RefuseImagesOfAnotherTask) {
  Rig rig("{name: er}");
  Task later;
  later.train = {{2, 1}, {3, 1}};
  rig.images.set_task(later);
  EXPECT_THROW(rig.images.image(0), std::logic_error);
  EXPECT_THROW(rig.images.each_batch({{1, 0}}, [](const Batch&) {}), std::logic_error);
  EXPECT_EQ(rig.images.image(3).pixels, grey(180, 32).pixels);
}

}  // namespace
}  // namespace rep
