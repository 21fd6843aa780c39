#pragma once

#include <cstdint>
#include <vector>

#include "core/config.h"

namespace rep {

/// Which training images each task has, in their order, and the order in which the classes were
/// drawn.
struct BlurryCut {
  std::vector<std::vector<int64_t>> images;
  std::vector<int64_t> class_order;
};

/// Blurred task boundaries, as the sampler of Si-Blurry's code (KU-VGI/Si-Blurry) makes them, draw
/// for draw:
///   1. A share `disjoint` of the classes, rounded down to a multiple of the tasks, is shared out
///      among them; each of these classes is in one task alone. So are the others, the blurry
///      classes, as their home.
///   2. Of each task's blurry images, in stored order, the first share `blur` is taken, pooled and
///      shuffled, and dealt to all tasks (a task may get its own back).
///   3. A task's images are shuffled.
/// Equal tasks get equally many of each, as in i-Blurry's published splits. `varied`: how many
/// classes of either sort a task has, and how many images each gives and gets, is drawn.
/// Differs from that code: where equal parts of the pool leave a rest, it drops the rest, and here
/// the first tasks get one each; blurry classes that do not divide into equal tasks, of which it
/// drops some, are refused, and where the tasks are varied, none is dropped. Throws Error, also for
/// a task without images.
BlurryCut cut_blurry(const std::vector<int64_t>& labels, int64_t num_classes, int64_t tasks,
                     const BlurryConfig& config, uint32_t seed);

}  // namespace rep
