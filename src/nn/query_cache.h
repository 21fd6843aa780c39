#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "tensor/state.h"

namespace rep {

/// What a query pass tells of images.
struct QueryAnswer {
  torch::Tensor queries;       // [B, D]
  torch::Tensor patch_scores;  // [B, patches], where they are asked for (nn/patch_sampling.h)
};

/// The queries of a split's images, each computed once: exact where the model is frozen and an
/// image has one view. They are kept for the run and its checkpoints and, with a file, for other
/// runs.
class QueryCache {
 public:
  /// Caches that many images; 0: nothing.
  void set_images(int64_t images) { images_ = images; }
  int64_t images() const { return images_; }
  /// Patches whose scores are told, too; 0: none. Then no file is used.
  void set_patches(int64_t patches) { patches_ = patches; }
  /// The safetensors file that runs share; `key` says all that its queries follow from. It is read
  /// when the cache is made. Throws Error, then, where it is damaged or of another key.
  void share(std::string path, std::string key) {
    path_ = std::move(path);
    key_ = std::move(key);
  }

  bool is_made() const { return known_.defined(); }
  /// Room on the CPU for queries of that width. No effect where there is room already.
  void make(int64_t width);
  /// The answers for `images` at the positions `indices`, int64 [B] on the CPU; `compute` is called
  /// with those that are not known. What came from the file counts its MACs at its first use, as if
  /// it had been computed.
  using Compute = std::function<QueryAnswer(const torch::Tensor& images, bool scored)>;
  QueryAnswer answer(const torch::Tensor& images, const torch::Tensor& indices,
                     const Compute& compute);
  /// Adds what this run computed to the file. Throws Error.
  void keep();
  /// Images whose query came from the file.
  int64_t from_file() const { return from_file_; }
  /// Forgets every query, as when images have another view from now on.
  void forget();

  void state(State& s, const std::string& split);

 private:
  void fit_to_images();
  void read_file();
  void count_reused(const torch::Tensor& indices);

  int64_t images_ = 0, patches_ = 0;
  torch::Tensor queries_, known_;  // float [images, D], bool [images], on the CPU
  torch::Tensor scores_;           // float [images, patches], or undefined
  torch::Tensor unused_;           // bool [images]: from the file, not asked for yet; or undefined
  std::string path_, key_;
  std::string seen_;  // the file as it was when it was last read or written: its time and size
  int64_t macs_ = 0;  // of one query
  int64_t from_file_ = 0;
  bool is_fresh_ = false;  // there is something to keep
};

}  // namespace rep
