// The safetensors format (https://github.com/huggingface/safetensors, "Format").
#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"

namespace rep {

namespace {

constexpr const char* kMetadata = "__metadata__";
constexpr size_t kMaxHeaderBytes = size_t{100} << 20;
constexpr size_t kAlignment = 8;
// {"name": {"shape": [1]}}: the file's object, a tensor's, a list, its numbers.
constexpr int kMaxDepth = 3;

// One tensor of the header, checked: `begin` and `end` lie inside the data.
struct Entry {
  TensorInfo info;
  torch::ScalarType dtype;
  size_t begin, end;
};

struct Header {
  std::vector<Entry> entries;  // by offset
  std::map<std::string, std::string> metadata;
  const uint8_t* data;
};

[[noreturn]] void fail(const MappedFile& file, const std::string& problem) {
  throw Error(file.path() + ": " + problem + ": fetch or write the safetensors file again");
}

// Bounds the nesting while it is parsed and refuses keys that come twice, which JSON leaves open.
nlohmann::json parse_json(const MappedFile& file, const char* begin, const char* end) {
  std::vector<std::set<std::string>> open_objects;
  const auto inspect = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kMaxDepth) fail(file, "the header is nested too deeply");
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if (event == Event::key && !open_objects.back().insert(parsed.get<std::string>()).second) {
      fail(file, "the header has a key twice");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(begin, end, inspect);
  } catch (const nlohmann::json::exception&) {
    fail(file, "the header is not valid JSON");
  }
}

std::map<std::string, std::string> read_metadata(const MappedFile& file,
                                                 const nlohmann::json& json) {
  std::map<std::string, std::string> metadata;
  if (!json.is_object()) fail(file, "the metadata is not an object of strings");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) fail(file, "the metadata is not an object of strings");
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

// A list of counts, each fit for int64_t.
std::vector<int64_t> read_counts(const MappedFile& file, const std::string& what,
                                 const nlohmann::json& json) {
  std::vector<int64_t> counts;
  if (!json.is_array()) fail(file, what + " is not a list of counts");
  for (const auto& item : json) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > uint64_t{INT64_MAX}) {
      fail(file, what + " is not a list of counts");
    }
    counts.push_back(item.get<int64_t>());
  }
  return counts;
}

Entry read_entry(const MappedFile& file, const std::string& name, const nlohmann::json& json,
                 size_t data_bytes) {
  if (!is_tensor_name(name)) fail(file, "the header has a tensor name with unprintable characters");
  const std::string what = "tensor '" + name + "'";
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets") || !json["dtype"].is_string()) {
    fail(file, what + " is not described by dtype, shape and data_offsets");
  }
  const std::string dtype_text = json["dtype"].get<std::string>();
  const auto dtype = dtype_of(dtype_text);
  if (!dtype) {
    throw Error(file.path() + ": " + what +
                " has a dtype other than F64, F32, F16, BF16, I64, I32, " +
                "I16, I8, U8 and BOOL: convert it to one of those");
  }
  const auto shape = read_counts(file, "the shape of " + what, json["shape"]);
  const auto offsets = read_counts(file, "data_offsets of " + what, json["data_offsets"]);
  if (offsets.size() != 2 || offsets[0] > offsets[1] ||
      static_cast<uint64_t>(offsets[1]) > data_bytes) {
    fail(file, what + " lies outside the file");
  }
  const auto bytes = bytes_of(shape, static_cast<int64_t>(c10::elementSize(*dtype)));
  if (!bytes || *bytes != offsets[1] - offsets[0]) {
    fail(file, what + " has a shape that does not fit its data_offsets");
  }
  return {{name, dtype_text, shape},
          *dtype,
          static_cast<size_t>(offsets[0]),
          static_cast<size_t>(offsets[1])};
}

Header read_header(const MappedFile& file) {
  uint64_t header_bytes = 0;
  if (file.size() < sizeof(header_bytes)) fail(file, "too short to be a safetensors file");
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  const size_t after_length = file.size() - sizeof(header_bytes);
  if (header_bytes > std::min(after_length, kMaxHeaderBytes)) {
    fail(file, "not a safetensors file, or cut short (its header is longer than the file)");
  }
  const auto* text = reinterpret_cast<const char*>(file.data()) + sizeof(header_bytes);
  const nlohmann::json json = parse_json(file, text, text + header_bytes);
  if (!json.is_object()) fail(file, "the header is not a JSON object");

  Header header;
  header.data = file.data() + sizeof(header_bytes) + header_bytes;
  const size_t data_bytes = after_length - header_bytes;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata) {
      header.metadata = read_metadata(file, value);
    } else {
      header.entries.push_back(read_entry(file, name, value, data_bytes));
    }
  }
  std::sort(header.entries.begin(), header.entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.info.name) < std::tie(b.begin, b.end, b.info.name);
  });
  size_t reached = 0;
  for (const Entry& entry : header.entries) {
    if (entry.begin != reached) {
      fail(file, "tensor '" + entry.info.name + "' overlaps another or leaves a gap before it");
    }
    reached = entry.end;
  }
  if (reached != data_bytes) fail(file, "the tensors do not fill the file (cut short, or longer)");
  return header;
}

std::string make_header(const NamedTensors& tensors,
                        const std::map<std::string, std::string>& metadata) {
  Json json = Json::object();
  if (!metadata.empty()) json[kMetadata] = metadata;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK(!json.contains(name) && name != kMetadata, "two tensors are named '", name, "'");
    const std::string dtype = dtype_name(tensor.scalar_type());
    TORCH_CHECK(!dtype.empty(), "safetensors cannot hold '", name, "': ", tensor.scalar_type());
    const int64_t end = offset + static_cast<int64_t>(tensor.nbytes());
    json[name] = {{"dtype", dtype},
                  {"shape", tensor.sizes().vec()},
                  {"data_offsets", Json::array({offset, end})}};
    offset = end;
  }
  std::string text = json.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

Safetensors read_safetensors(const std::string& path) {
  const MappedFile file(path);
  Header header = read_header(file);
  Safetensors result;
  result.metadata = std::move(header.metadata);
  result.tensors.reserve(header.entries.size());
  for (const Entry& entry : header.entries) {
    const torch::Tensor tensor = torch::empty(entry.info.shape, entry.dtype);
    const uint8_t* bytes = header.data + entry.begin;
    if (entry.dtype == torch::kBool && !are_bools(bytes, entry.end - entry.begin)) {
      fail(file, "tensor '" + entry.info.name + "' is BOOL but holds other values than 0 and 1");
    }
    if (entry.end > entry.begin) std::memcpy(tensor.data_ptr(), bytes, entry.end - entry.begin);
    result.tensors.emplace_back(entry.info.name, tensor);
  }
  return result;
}

std::vector<TensorInfo> list_safetensors(const std::string& path,
                                         std::map<std::string, std::string>* metadata) {
  const MappedFile file(path);
  Header header = read_header(file);
  if (metadata) *metadata = std::move(header.metadata);
  std::vector<TensorInfo> list;
  for (Entry& entry : header.entries) list.push_back(std::move(entry.info));
  return list;
}

void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Large items first: as the format allows no gap, this is what aligns every tensor to its items.
  NamedTensors sorted = tensors;
  for (const auto& [name, tensor] : sorted) {
    TORCH_CHECK(tensor.defined(), "'", name, "' is not defined");
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });
  const std::string header = make_header(sorted, metadata);
  const uint64_t header_bytes = header.size();
  AtomicFile file(path);
  file.write(&header_bytes, sizeof(header_bytes));
  file.write(header);
  for (const auto& [name, tensor] : sorted) {
    // No copy of what is contiguous on the CPU already; otherwise one tensor's at a time.
    const torch::Tensor plain = tensor.detach().to(torch::kCPU).contiguous();
    if (plain.nbytes() > 0) file.write(plain.data_ptr(), plain.nbytes());
  }
  file.commit();
}

}  // namespace rep
