#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/dataset.h"

namespace rep {

/// One image of a task: where it lies in the data set and its label IN THE ORDER OF THE STREAM.
struct Sample {
  int64_t index;
  int64_t label;
};

/// A step of the stream. Labels are positions in the class order: task t has the labels
/// [first_label, first_label + classes.size()), and everything seen so far is [0, last_label()).
/// Where tasks share classes (Stream::disjoint false), first_label is 0.
struct Task {
  int64_t index = 0;
  std::string domain;  // "" where tasks are not domains
  int64_t first_label = 0;
  std::vector<int64_t> classes;  // the data set's own class ids
  std::vector<Sample> train, test;
  bool is_tested = true;  // whether all that was seen by its end is tested then
  int64_t last_label() const { return first_label + static_cast<int64_t>(classes.size()); }
};

struct Stream {
  std::vector<Task> tasks;
  std::vector<int64_t> class_order;  // stream label -> the data set's class id
  bool disjoint = true;              // every class is in one task alone
  int64_t num_classes() const { return static_cast<int64_t>(class_order.size()); }
  std::vector<std::vector<int64_t>> classes() const {  // of each task
    std::vector<std::vector<int64_t>> classes;
    for (const Task& task : tasks) classes.push_back(task.classes);
    return classes;
  }
};

/// "'ant', 'bee', ...": at most ten of them, for messages.
std::string name_some(const std::vector<std::string>& names);

/// natural: 0..C-1; seed: shuffled by the run's seed; 1993 (or any whole number): numpy's legacy
/// RandomState(n).shuffle of 0..C-1, which begins 68,56,78,8,23,84,90,65,74,76 for 1993 and C =
/// 100; python:10: Python's random.seed(10) and shuffle, as Stream-51's orders; a list; or a text
/// file of whole numbers. Throws Error on a repeat, a gap, or an unreadable file.
std::vector<int64_t> make_class_order(const WordOrList& order, int64_t num_classes, int64_t seed);

/// The labels of the stream: by class id, its position in the class order.
std::vector<int64_t> label_of_class(const std::vector<int64_t>& class_order);

/// A function of data sets, stream configuration and seed, never of the method. Of stream.kind
/// class_incremental and online every class is in exactly one task. A task's training images come
/// in stream.order:
///   shuffled        as stored, but every epoch of the loop shuffles them (the default)
///   stored          as the data set lists them
///   iid             all images shuffled, once
///   class_iid       class after class in the class order, each one's images shuffled, once
///   instance        the videos shuffled, the frames of each in their order
///   class_instance  class after class in the class order, each one's videos shuffled
/// All but the first reach the loop as they are, in every epoch: with train.epochs 1 that is the
/// streaming protocol. The last four are Stream-51's, shuffled as its code does: order_seed 10, 20
/// or 30 with class_order python:10, python:20 or python:30 give the official orders of the whole
/// set (iid and instance know no tasks of classes there: tasks 1). Of domain_incremental each
/// domain is a task, with all classes; of blurry see data/blurry_cut.h: a task then has all classes
/// that were seen by its end, and tests those that it is the first to show. Throws Error when there
/// are more tasks than classes, sizes do not add up, or videos or domains are asked of a data set
/// that has none.
Stream cut_into_tasks(const Dataset& train, const Dataset& test, const StreamConfig& config,
                      int64_t seed);

/// From now on all that was seen is tested after every so manyth task only, and after the last.
void test_every(int64_t tasks, Stream& stream);

/// What joint learning sees: nothing until the last task, and then the training images of all; only
/// then is there anything to test.
void give_all_training_to_the_last_task(Stream& stream);

}  // namespace rep
