#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "formats/named_tensors.h"
#include "tests/weight_files.h"

// Weight files as other programs write them, made by hand: PyTorch's checkpoints with whatever
// stands in them, and numpy's archives.
namespace rep::testing {

/// A dict of a checkpoint: keys with a tensor (float32), a dict, or the pickle code of anything.
struct Tree {
  using Value = std::variant<torch::Tensor, std::shared_ptr<Tree>, std::string>;
  std::vector<std::pair<std::string, Value>> entries;
  bool module = false;  // an object of an unknown class with these attributes

  Tree& add(const std::string& key, Value value) {
    entries.emplace_back(key, std::move(value));
    return *this;
  }
  Tree& add(const std::string& key, const Tree& tree) {
    return add(key, Value(std::make_shared<Tree>(tree)));
  }
  Tree& add(const NamedTensors& tensors) {
    for (const auto& [name, tensor] : tensors) add(name, Value(tensor));
    return *this;
  }
};

namespace pickled {

inline std::string bytes_of_number(int64_t value, int bytes) {
  return {reinterpret_cast<const char*>(&value), static_cast<size_t>(bytes)};
}
inline std::string text(const std::string& value) {
  return "X" + bytes_of_number(static_cast<int64_t>(value.size()), 4) + value;
}
inline std::string integer(int64_t value) { return "\x8a\x08" + bytes_of_number(value, 8); }
inline std::string sizes(at::IntArrayRef values) {
  std::string code = "(";
  for (const int64_t value : values) code += integer(value);
  return code + "t";
}

inline std::string tensor(const torch::Tensor& given, ZipEntries& storages) {
  const torch::Tensor floats = given.to(torch::kFloat32).contiguous();
  const std::string key = std::to_string(storages.size());
  storages.emplace_back("archive/data/" + key,
                        std::string(static_cast<const char*>(floats.data_ptr()), floats.nbytes()));
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" +
         text(key) + text("cpu") + integer(floats.numel()) + "tQ" + integer(0) +
         sizes(floats.sizes()) + sizes(floats.strides()) + "\x89" +
         "ccollections\nOrderedDict\n)RtR";
}

inline std::string dict(const Tree& tree, ZipEntries& storages) {
  std::string code = "}(";
  for (const auto& [key, value] : tree.entries) {
    code += text(key);
    if (const auto* given = std::get_if<torch::Tensor>(&value)) {
      code += tensor(*given, storages);
    } else if (const auto* inner = std::get_if<std::shared_ptr<Tree>>(&value)) {
      code += dict(**inner, storages);
    } else {
      code += std::get<std::string>(value);
    }
  }
  code += "u";
  return tree.module ? "cmy.models\nNet\n)\x81" + code + "b" : code;
}

}  // namespace pickled

/// What torch.save writes for that dict.
inline std::string torch_file(const std::string& name, const Tree& tree) {
  ZipEntries entries;
  const std::string program = "\x80\x02" + pickled::dict(tree, entries) + ".";
  entries.emplace_back("archive/data.pkl", program);
  entries.emplace_back("archive/version", "3\n");
  return temporary_zip(name, entries);
}

/// What numpy.savez writes for float32 arrays.
inline std::string npz_file(const std::string& name, const NamedTensors& arrays) {
  ZipEntries entries;
  for (const auto& [array, tensor] : arrays) {
    const torch::Tensor floats = tensor.to(torch::kFloat32).contiguous();
    std::string shape;
    for (const int64_t size : floats.sizes()) shape += std::to_string(size) + ", ";
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.append(63 - (10 + header.size()) % 64, ' ');
    header += '\n';
    std::string bytes = "\x93NUMPY\x01";
    bytes += '\0';
    bytes += static_cast<char>(header.size() & 0xff);
    bytes += static_cast<char>(header.size() >> 8);
    bytes += header;
    bytes.append(static_cast<const char*>(floats.data_ptr()), floats.nbytes());
    entries.emplace_back(array + ".npy", bytes);
  }
  return temporary_zip(name, entries);
}

}  // namespace rep::testing
