#include "data/completeness.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "data/stream.h"

namespace rep {
namespace {

std::vector<int64_t> images_by_class(const Dataset& dataset) {
  std::vector<int64_t> images(static_cast<size_t>(dataset.num_classes()));
  for (const int64_t label : dataset.labels()) ++images[static_cast<size_t>(label)];
  return images;
}

// What is wrong with an image, "" if nothing.
std::string fault_of(const Dataset& dataset, int64_t index) {
  try {
    dataset.image(index);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void require_files(const Dataset& dataset, const std::string& name) {
  const Contents contents = contents_of(dataset);
  if (contents.missing == 0) return;
  throw Error("dataset: " + std::to_string(contents.missing) + " of " +
              std::to_string(contents.images) + " " + name +
              " images are missing or empty (rep check --decode lists all); the first: " +
              fault_of(dataset, contents.first_missing));
}

void require_every_class(const Dataset& dataset, const std::string& name) {
  std::vector<std::string> empty;
  const std::vector<int64_t> images = images_by_class(dataset);
  for (size_t c = 0; c < images.size(); ++c) {
    if (images[c] == 0) empty.push_back(dataset.class_names()[c]);
  }
  if (empty.empty()) return;
  throw Error("dataset: no " + name + " images of " + std::to_string(empty.size()) + " of " +
              std::to_string(images.size()) + " classes (" + name_some(empty) +
              "); every class needs at least one, or must go from both splits");
}

}  // namespace

Contents contents_of(const Dataset& dataset) {
  Contents contents;
  contents.images = dataset.size();
  for (const int64_t images : images_by_class(dataset)) contents.classes += images > 0;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const int64_t bytes = dataset.stored_bytes(i);
    contents.bytes += std::max<int64_t>(bytes, 0);
    if (bytes < 0 && contents.missing++ == 0) contents.first_missing = i;
  }
  return contents;
}

std::string missing_note(const Dataset& dataset, const OfficialCounts& official,
                         const std::string& name) {
  const std::string set = "the " + name + " set ";
  if (official.images > 0 && dataset.size() > official.images) {
    return set + "has " + std::to_string(dataset.size()) + " images, more than the published " +
           std::to_string(official.images);
  }
  const std::vector<int64_t> by_class = images_by_class(dataset);
  std::string text;
  if (dataset.size() < official.images) {
    text = std::to_string(official.images - dataset.size()) + " of " +
           std::to_string(official.images) + " images";
  }
  const auto shortest = std::min_element(by_class.begin(), by_class.end());
  if (shortest != by_class.end() && *shortest < official.per_class) {
    const auto classes = std::count_if(by_class.begin(), by_class.end(),
                                       [&](int64_t n) { return n < official.per_class; });
    text += (text.empty() ? "" : ": ") + std::string("images of ") + std::to_string(classes) +
            (classes == 1 ? " class, '" : " classes, most of '") +
            dataset.class_names()[static_cast<size_t>(shortest - by_class.begin())] +
            "', which has " + std::to_string(*shortest) + " of " +
            std::to_string(official.per_class);
  }
  return text.empty() ? "" : set + "is a part of the published one; it lacks " + text;
}

std::vector<std::string> check_data(const Dataset& train, const Dataset& test,
                                    const std::string& tested) {
  require_files(train, "training");
  require_files(test, tested);
  require_every_class(train, "training");
  require_every_class(test, tested);
  std::vector<std::string> notes = train.notes();
  for (std::string& note : test.notes()) {
    if (std::find(notes.begin(), notes.end(), note) == notes.end()) {
      notes.push_back(std::move(note));
    }
  }
  return notes;
}

std::vector<std::string> broken_images(const Dataset& dataset) {
  std::map<int64_t, std::string> faults;
  std::mutex mutex;
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next++; i < dataset.size(); i = next++) {
      const std::string fault = fault_of(dataset, i);
      if (fault.empty()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      faults.emplace(i, fault);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  std::vector<std::string> all;
  for (const auto& [index, fault] : faults) all.push_back(fault);
  return all;
}

}  // namespace rep
