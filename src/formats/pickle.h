#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace rep {

/// What a pickle of a state dict is made of. Everything that the reader has no use for (None,
/// booleans, floats, integers beyond 64 bits, results of unknown functions) is kOpaque and carries
/// nothing; an object of an unknown class that is given attributes is a kObject of them.
struct PickleValue {
  enum class Kind {
    kOpaque,
    kInteger,
    kText,
    kTuple,
    kList,
    kDict,
    kObject,
    kGlobal,
    kStorage,
    kTensor
  };
  Kind kind = Kind::kOpaque;
  int64_t integer = 0;              // kInteger; of kStorage its number of items
  std::string text;                 // kText; of kGlobal "module name"; of kStorage its key
  std::vector<PickleValue*> items;  // kTuple, kList; of kDict, kObject key, value, key, value ...
  // kStorage:
  std::string storage_type;  // "torch FloatStorage"
  // kTensor, unchecked against its storage:
  const PickleValue* storage = nullptr;
  int64_t offset = 0;  // in items, as the strides
  std::vector<int64_t> shape, strides;

  bool is(Kind wanted) const { return kind == wanted; }
};

/// A pickle of protocol 2 as torch.save writes it. A pickle is a program; this one is run by a
/// machine that can only build the values above: calls of OrderedDict, _rebuild_tensor_v2 and
/// _rebuild_parameter are understood, a call of anything else gives an opaque value and calls
/// nothing. Parsed as hostile: at most a million values, no recursion. Knows nothing of LibTorch.
class Pickle {
 public:
  /// Runs `program`; `path` names its file in messages. Throws Error.
  Pickle(const std::string& path, const std::string& program);
  const PickleValue& root() const { return *root_; }

 private:
  // Values point to each other freely: cycles and chains of any depth are freed without recursion.
  std::deque<PickleValue> arena_;
  const PickleValue* root_ = nullptr;
};

}  // namespace rep
