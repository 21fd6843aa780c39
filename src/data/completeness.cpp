#include "data/completeness.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <new>
#include <thread>
#include <unordered_set>

#include "core/error.h"
#include "core/parallel.h"
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
  } catch (const std::bad_alloc&) {
    return "image " + std::to_string(index) + ": there is no memory for its pixels";
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

// "", or how many images are both learned from and tested on, by their paths.
std::string overlap_note(const Dataset& train, const Dataset& test, const std::string& tested) {
  const std::hash<std::string> hash;
  std::unordered_set<size_t> learned;
  for (int64_t i = 0; i < train.size(); ++i) {
    if (const std::string path = train.path(i); !path.empty()) learned.insert(hash(path));
  }
  int64_t both = 0;
  for (int64_t i = 0; i < test.size() && !learned.empty(); ++i) {
    if (const std::string path = test.path(i); !path.empty()) both += learned.count(hash(path)) > 0;
  }
  if (both == 0) return "";
  return std::to_string(both) + " of " + std::to_string(test.size()) + " " + tested +
         " images are training images, too: accuracies are partly of what was learned";
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
  if (std::string note = overlap_note(train, test, tested); !note.empty()) {
    notes.push_back(std::move(note));
  }
  return notes;
}

std::vector<std::string> broken_images(const Dataset& dataset) {
  std::vector<std::string> faults(static_cast<size_t>(dataset.size()));
  parallel_for(dataset.size(), std::thread::hardware_concurrency(),
               [&](int64_t i) { faults[static_cast<size_t>(i)] = fault_of(dataset, i); });
  std::vector<std::string> all;
  std::copy_if(faults.begin(), faults.end(), std::back_inserter(all),
               [](const std::string& fault) { return !fault.empty(); });
  return all;
}

}  // namespace rep
