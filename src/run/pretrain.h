#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/files.h"
#include "core/progress.h"

namespace rep {

// Supervised pretraining of a small ViT on a base data set, so that a frozen backbone is to be had
// without a download. Its configuration is an experiment's: the backbone's size, `train`, `dataset`
// and `seed` mean the same; all classes are one task that the whole backbone and a linear head
// learn.

/// Where pretrained weights are kept, under the current folder.
constexpr const char* kWeightsFolder = "weights";
/// `weights: pretrain:CONFIG.yaml` in an experiment.
constexpr const char* kPretrainPrefix = "pretrain:";

/// Throws Error, also for what means nothing here (method, stream, efficiency, weights, trainable).
Config read_pretraining(const std::string& path, const std::vector<std::string>& overrides = {});

/// BACKBONE-HASH: the hash is of everything that bears on the weights (the data, which is opened,
/// by its content), of nothing else, and of no option that is at its default, so that a file of
/// that name never has to be made twice.
std::string pretrained_name(const Config& pretraining);
/// FOLDER/pretrained_name.safetensors; or the file that an earlier build made of the same, which
/// wrote every option into its name.
std::string pretrained_path(const Config& pretraining, const std::string& folder = kWeightsFolder);

struct Pretrained {
  double accuracy = 0;  // percent of the held-out images
  int64_t images = 0;   // held out
};
/// A name for this pre-training that is known before its data is opened.
std::string pretraining_request(const Config& pretraining,
                                const std::string& folder = kWeightsFolder);
/// Keeps other processes from making the file at `path` meanwhile. When one is at it: waits, and
/// says so, or without `waiting` throws Error. Throws Interrupted.
FileLock lock_pretraining(const std::string& path, Progress* waiting);

/// Trains, tests and writes the backbone to `path` (timm's names; the configuration in the
/// metadata). Throws Error, and Interrupted with nothing written.
Pretrained pretrain(const Config& pretraining, const std::string& path, Progress& progress);

/// The weights of that pretraining configuration: the file in `folder`, made now if it is not
/// there, by one of the processes that want it.
std::string pretrained(const std::string& config_path, Progress& progress,
                       const std::string& folder = kWeightsFolder);

/// Puts files in the place of an experiment's `pretrain:` weights. Without `progress` nothing is
/// trained: random weights stand in for a file that is not there yet (rep check).
void resolve_pretrained(Config& experiment, Progress* progress,
                        const std::string& folder = kWeightsFolder);

}  // namespace rep
