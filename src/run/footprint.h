#pragma once

#include <cstdint>

#include "core/config.h"

namespace rep {

/// Bytes that are a line in the number of images at hand at once.
struct BytesLine {
  double fixed = 0, an_image = 0;
  int64_t at(int64_t images) const;
};

/// What a run holds, as far as images decide it, from a few steps and tests of one and two images.
struct Footprint {
  // The most that CPU tensors hold: in a step and in a test, by images; while a task begins, while
  // one ends, and while a checkpoint is written.
  BytesLine step, test;
  int64_t begin = 0, task_end = 0, checkpoint = 0;
  int64_t test_images = 0;  // of the task that has the most: no test takes more at once
  // By which an image of a step holds less when all of the frozen MLPs is recomputed, and when of
  // every block only the input is kept; 0: where nothing does.
  double mlps = 0, blocks = 0;
  int64_t parts = 0;         // that a step of micro-batches holds more: gradients while it goes on
  double entering = 0;       // bytes of an image's tokens, as they enter a block
  int64_t depth = 0;         // blocks
  double forward_share = 0;  // of a step's MACs, what its forward pass through the blocks takes
  int64_t image_bytes = 0;   // of an image in the loader
  int64_t beside = 0;   // resident beside tensors: the program, its libraries and their buffers
  int64_t loading = 0;  // resident at most while data and weights are opened
  bool divides_batches = false;  // whether micro-batches come to the same
  bool divides_tests = false;    // and smaller batches of test images
};

/// Goes through the stream with the real method, data and weights, as the rehearsal of `rep plan`
/// does (run/rehearsal.h), with two images a class where a method looks at all of a task's and
/// steps in the first and the last task only. A method that learns from whole batches takes one
/// there, which is then the least that a step can hold. No block is dropped, and what the method
/// stores counts as full. On the CPU. Throws Error as a run would.
Footprint measure_footprint(const Config& config);

}  // namespace rep
