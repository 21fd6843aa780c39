#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/named_tensors.h"

namespace rep {

/// How a tensor of theirs becomes one of timm's.
struct Renaming {
  std::string theirs, timm;
  int64_t dimensions;  // of theirs
  torch::Tensor (*convert)(const torch::Tensor&);
};

/// One way to name a ViT's tensors: one table, in one file (nn/weights_*.cpp). What no row names
/// keeps its name, and is refused later unless timm has it.
struct NameFamily {
  struct Prepared {
    std::string name;  // that the tables know
    torch::Tensor tensor;
    std::string source;  // the file's own
  };

  const char* name;  // in messages; "" where nothing is to be said of it
  /// Two tensors that every file of the family has: by them it is known, and what stands before
  /// their names.
  const char *patches, *token;
  std::vector<Renaming> outside;
  /// Before a block's number ("encoder.layer."), and the rows of names behind it. Parts of
  /// attn.qkv are attn.q, attn.k and attn.v there, joined afterwards.
  std::vector<const char*> blocks;
  std::vector<Renaming> block;
  /// Beginnings of names that are no part of the backbone's features.
  std::vector<const char*> left_out;
  /// Rows of names that stand beside the backbone and not below its prefix.
  std::vector<Renaming> beside;
  /// What comes first, where names need more than a table.
  std::vector<Prepared> (*prepare)(const NamedTensors& tensors) = nullptr;
};

const NameFamily& timm_family();          // and what differs from it in few names
const NameFamily& google_family();        // Flax: vision_transformer and big_vision
const NameFamily& transformers_family();  // ViT, DeiT, DINOv2
const NameFamily& clip_family();          // OpenAI, open_clip
const NameFamily& transformers_clip_family();

/// Layouts that tables name.
namespace layout {
torch::Tensor keep(const torch::Tensor& x);
torch::Tensor transposed(const torch::Tensor& x);    // [in, out]
torch::Tensor as_token(const torch::Tensor& x);      // [D] -> [1, 1, D]
torch::Tensor as_positions(const torch::Tensor& x);  // [N, D] -> [1, N, D]
}  // namespace layout

/// A file's tensors under timm's names.
struct TimmTensors {
  NamedTensors tensors;
  std::map<std::string, std::string> sources;  // the file's own name of each, or of its stack
  std::vector<std::string> notes;              // what was done, for people
  std::string hint;  // "; ..." for a message that a tensor is missing, where one may help
};

/// Finds the one ViT in the file, takes a prefix of all its names away, renames its tensors, and
/// leaves out what stands beside it. A file in which no family is known, or whose ViT stands beside
/// what nobody knows, comes back as it is. Throws Error where there are several models, or a known
/// tensor has no fit shape. `path` names the file in messages.
TimmTensors to_timm_names(const NamedTensors& tensors, const std::string& path);

/// The same for names of one family, at whatever prefix.
TimmTensors renamed(const NamedTensors& tensors, const NameFamily& family,
                    const std::string& prefix, const std::string& path);

}  // namespace rep
