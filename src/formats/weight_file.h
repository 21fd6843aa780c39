#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/named_tensors.h"

namespace rep {

/// What a file of weights is, told by its bytes: names end in whatever their makers like.
enum class WeightFormat {
  kSafetensors,
  kNpz,
  kTorch,  // PyTorch's zip files, and its legacy format, which its reader refuses
  kIndex,  // model.safetensors.index.json, or pytorch_model.bin's: the tensors lie in other files
};

/// Throws Error for what is none of them, saying what it is and how to get the weights.
WeightFormat weight_format(const std::string& path);

struct WeightFile {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;  // of safetensors
  std::string note;                // what was taken of several; "" where there was no choice
  std::vector<std::string> files;  // that were read: `path`, and an index's shards
};

/// SHA-256 of the file; of an index, of a line "SHA-256 name" for it and each of its shards.
std::string digest_of_weight_file(const std::string& path);
/// The same of WeightFile::files; `each`, when wanted, receives the SHA-256 of every one.
std::string digest_of_weight_files(const std::vector<std::string>& files,
                                   std::vector<std::string>* each = nullptr);

/// Every tensor of a file of any format, under the file's own names; with `key` only those of that
/// part: a key of a PyTorch checkpoint (formats/state_dict.h), or the beginning of names, which is
/// then taken away. Throws Error.
WeightFile read_weight_file(const std::string& path, const std::string& key = "");

}  // namespace rep
