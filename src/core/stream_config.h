#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"

namespace rep {

/// Whether a class order is one that goes by its name; any other text is a file's path.
bool is_named_class_order(const std::string& text);

/// Blurred task boundaries: i-Blurry (Koh et al., arXiv 2110.10031) and Si-Blurry (Moon et al.,
/// arXiv 2308.09303), whose N and M these are, as shares.
struct BlurryConfig {
  double disjoint = 0.5;
  double blur = 0.1;
  bool varied = false;
  int64_t seed = -1;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("disjoint", disjoint, between(0, 1),
          doc("N: share of the classes that are in one task alone.", "", "i-Blurry"));
    visit(
        "blur", blur, between(0, 1),
        doc("M: share of the other classes' images that are dealt to all tasks.", "", "i-Blurry"));
    visit("varied", varied, doc("Tasks of unequal sizes, drawn.", "", "Si-Blurry"));
    visit("seed", seed, between(-1, 4294967295.0),
          doc("Seed of the draws, the authors' rnd_seed; -1: the run's."));
  }
};

/// Classes and tasks that a learner is made for, where more are to come than its stream has: a
/// later `rep learn` then gives the result of one run over all of them. 0: as many as the stream
/// has.
struct RoomConfig {
  int64_t classes = 0, tasks = 0;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("classes", classes, between(0, 1000000),
          doc("Classes that the learner is made for; 0: as many as the stream has.", "classes"));
    visit("tasks", tasks, between(0, 100000),
          doc("Tasks that the learner is made for; 0: as many as the stream has.", "tasks"));
  }
};

/// How the data set is cut into tasks (data/stream.h).
struct StreamConfig {
  std::string kind = "class_incremental";
  int64_t tasks = 10;
  WordOrList class_order = std::string("natural");
  std::vector<int64_t> classes_per_task;
  int64_t initial_classes = 0;
  std::string order = "shuffled";
  int64_t order_seed = 10;
  int64_t stop_after = 0;
  double validation = 0;
  WordOrList domain_order = std::string("natural");
  BlurryConfig blurry;
  RoomConfig room_for;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("tasks", tasks, at_least(1), doc("Tasks of equally many classes."));
    visit("class_order", class_order, file_unless(is_named_class_order),
          doc("Order in which the stream shows the classes: natural; seed: shuffled by the run's "
              "seed; a number such as 1993: numpy's permutation of that seed; python:10: Python's; "
              "a list of class numbers; or a text file of them."));
    visit("classes_per_task", classes_per_task,
          doc("Classes of each task, e.g. [50, 25, 25]; replaces tasks.", "classes"));
    visit("initial_classes", initial_classes, at_least(0),
          doc("Classes of the first task, the others sharing the rest; 0: as many as the others.",
              "classes"));
    visit("order", order,
          one_of({"shuffled", "stored", "iid", "class_iid", "instance", "class_instance"}),
          doc("Order of the training images. shuffled: anew every epoch; the others stay as they "
              "are. stored: as the data set lists them; iid: shuffled once; class_iid: class after "
              "class, each shuffled; instance, class_instance: the same of whole videos.",
              "", "the last four: Stream-51"));
    visit("order_seed", order_seed, between(0, 4294967295.0),
          doc("Seed of order's iid, class_iid, instance and class_instance; 10, 20 and 30 are the "
              "official ones.",
              "", "Stream-51"));
    visit("stop_after", stop_after, at_least(0),
          doc("Tasks that are learnt, of all of the stream; 0: all.", "tasks"));
    visit("kind", kind, one_of({"class_incremental", "domain_incremental", "online", "blurry"}),
          doc("What differs between tasks. class_incremental: the classes; domain_incremental: the "
              "domain, all classes being in each; online: the classes, every image once, in one "
              "pass; "
              "blurry: the classes, with blurred boundaries."));
    visit(
        "validation", validation, between(0, 0.9),
        doc("Share of each class's training images that is tested on, instead of the test images, "
            "which are not opened, and not trained on; 0: none."));
    visit("domain_order", domain_order,
          doc("Order of a domain-incremental stream's domains: natural, seed or a list."));
    visit("blurry", blurry, doc("Blurred boundaries of stream.kind: blurry."));
    visit("room_for", room_for,
          doc("What the learner is made for, where more is to come by rep learn."));
  }
};

}  // namespace rep
