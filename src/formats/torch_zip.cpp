// PyTorch's zip checkpoints: "<root>/data.pkl", a pickle (protocol 2) of everything but the
// numbers, which lie in "<root>/data/<key>", one entry a storage (torch/serialization.py, "_save").
#include "formats/torch_zip.h"

#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "formats/pickle.h"
#include "formats/state_dict.h"
#include "formats/zip_file.h"

namespace rep {

namespace {

constexpr int64_t kMaxPickleBytes = 16 << 20;

using Value = PickleValue;

std::optional<torch::ScalarType> dtype_of_storage(const std::string& global) {
  constexpr std::pair<const char*, torch::ScalarType> kStorages[] = {
      {"torch DoubleStorage", torch::kFloat64}, {"torch FloatStorage", torch::kFloat32},
      {"torch HalfStorage", torch::kFloat16},   {"torch BFloat16Storage", torch::kBFloat16},
      {"torch LongStorage", torch::kInt64},     {"torch IntStorage", torch::kInt32},
      {"torch ShortStorage", torch::kInt16},    {"torch CharStorage", torch::kInt8},
      {"torch ByteStorage", torch::kUInt8},     {"torch BoolStorage", torch::kBool},
  };
  for (const auto& [known, dtype] : kStorages) {
    if (global == known) return dtype;
  }
  return std::nullopt;
}

// Turns descriptions into tensors of their own memory. A storage that several share is read once
// and freed after its last user.
class StorageReader {
 public:
  StorageReader(const ZipFile& file, std::string root, const TensorDescriptions& tensors)
      : file_(file), root_(std::move(root)) {
    for (const auto& [name, tensor] : tensors) ++users_[tensor->storage->text];
  }

  torch::Tensor read(const std::string& name, const Value& tensor) {
    const Value& storage = *tensor.storage;
    const auto dtype = dtype_of_storage(storage.storage_type);
    if (!dtype) fail(name, "is not of a type that weights have (f64 f32 f16 bf16, integers, bool)");
    const auto bytes = bytes_of(tensor.shape, static_cast<int64_t>(c10::elementSize(*dtype)));
    if (!bytes || *bytes > kMaxTensorBytes - total_bytes_) fail(name, "is too large");
    total_bytes_ += *bytes;
    const torch::Tensor items = load(name, storage, *dtype);
    // Views of weights are not larger than what they view; an expanded one could claim any amount.
    if (*bytes > static_cast<int64_t>(items.nbytes())) fail(name, "is larger than its storage");
    std::vector<int64_t> strides = tensor.strides;
    check_bounds(name, tensor, strides);
    torch::Tensor result = torch::empty(tensor.shape, *dtype);
    if (*bytes > 0) result.copy_(items.as_strided(tensor.shape, strides, tensor.offset));
    if (--users_[storage.text] == 0) loaded_.erase(storage.text);
    return result;
  }

 private:
  torch::Tensor load(const std::string& name, const Value& storage, torch::ScalarType dtype) {
    const auto item_bytes = static_cast<int64_t>(c10::elementSize(dtype));
    const auto found = loaded_.find(storage.text);
    if (found != loaded_.end()) {
      if (found->second.scalar_type() != dtype || found->second.numel() != storage.integer) {
        fail(name, "shares a storage of another type or size");
      }
      return found->second;
    }
    const ZipFile::Entry* entry = file_.find(root_ + "data/" + storage.text);
    if (!entry || storage.integer > entry->bytes / item_bytes ||
        storage.integer * item_bytes != entry->bytes) {
      fail(name, "has no storage of the size that it needs");
    }
    const torch::Tensor items = torch::empty({storage.integer}, dtype);
    ZipFile::Stream stream(file_, *entry);
    stream.read(items.data_ptr(), entry->bytes);
    stream.finish();
    if (dtype == torch::kBool && !are_bools(items.data_ptr(), items.nbytes())) {
      fail(name, "is boolean but holds other values than 0 and 1");
    }
    loaded_[storage.text] = items;
    return items;
  }

  // offset + sum (size - 1) stride must stay inside the storage. The stride of a dimension of size
  // 1 is never used and becomes 1.
  void check_bounds(const std::string& name, const Value& tensor,
                    std::vector<int64_t>& strides) const {
    int64_t left = tensor.storage->integer - 1 - tensor.offset;
    bool inside = tensor.offset >= 0 && left >= 0;
    for (size_t i = 0; i < strides.size(); ++i) {
      const int64_t steps = tensor.shape[i] - 1;
      if (steps == -1) return;  // no items at all
      if (steps == 0) strides[i] = 1;
      inside = inside && strides[i] >= 0 && (steps == 0 || strides[i] <= left / steps);
      if (inside) left -= steps * (steps == 0 ? 0 : strides[i]);
    }
    if (!inside) fail(name, "reaches outside its storage");
  }

  [[noreturn]] void fail(const std::string& name, const std::string& problem) const {
    throw Error(file_.path() + ": tensor '" + name + "' " + problem +
                ": fetch the file again, or save it anew in Python with torch.save");
  }

  const ZipFile& file_;
  std::string root_;
  std::map<std::string, int64_t> users_;
  std::map<std::string, torch::Tensor> loaded_;
  int64_t total_bytes_ = 0;
};

std::string read_text(const ZipFile& file, const ZipFile::Entry& entry, int64_t limit) {
  if (entry.bytes > limit)
    throw Error(file.path() + ": its pickle is larger than any state dict's");
  std::string text(static_cast<size_t>(entry.bytes), '\0');
  ZipFile::Stream stream(file, entry);
  stream.read(text.data(), entry.bytes);
  stream.finish();
  return text;
}

// "archive/", or whatever the file was called when it was saved.
std::string find_root(const ZipFile& file) {
  const std::string kPickle = "data.pkl";
  for (const auto& [name, entry] : file.entries()) {
    const size_t slash = name.find('/');
    if (slash != std::string::npos && name.substr(slash + 1) == kPickle) {
      return name.substr(0, slash + 1);
    }
  }
  throw Error(file.path() +
              ": a zip archive, but not one that torch.save wrote (it has no data.pkl)");
}

void refuse_legacy_format(const std::string& path) {
  // torch.save before 1.6 wrote a bare pickle, which starts with PROTO 2 (a zip starts with "PK").
  std::ifstream file(path, std::ios::binary);
  if (file.get() == 0x80) {
    throw Error(path +
                ": in PyTorch's legacy format, which is not read: in Python, "
                "torch.save(torch.load(path), path) writes the present one");
  }
}

}  // namespace

NamedTensors read_torch_zip(const std::string& path, const std::string& key, std::string* note) {
  refuse_legacy_format(path);
  const ZipFile file(path);
  const std::string root = find_root(file);
  const ZipFile::Entry* byte_order = file.find(root + "byteorder");
  if (byte_order && read_text(file, *byte_order, 16) != "little") {
    throw Error(path + ": saved on a big-endian machine, which is not read: save it on another");
  }
  const std::string program = read_text(file, *file.find(root + "data.pkl"), kMaxPickleBytes);
  const Pickle pickle(path, program);
  const StateDict model = find_state_dict(path, pickle.root(), key);
  if (note) *note = model.note;
  StorageReader storages(file, root, model.tensors);
  NamedTensors tensors;
  std::set<std::string> names;
  for (const auto& [name, description] : model.tensors) {
    if (!is_tensor_name(name) || !names.insert(name).second) {
      throw Error(path + ": a tensor's name comes twice or has unprintable characters");
    }
    tensors.emplace_back(name, storages.read(name, *description));
  }
  return tensors;
}

}  // namespace rep
