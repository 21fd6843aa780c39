#include "formats/weight_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "core/affix.h"
#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "formats/npz.h"
#include "formats/safetensors.h"
#include "formats/torch_zip.h"
#include "formats/zip_file.h"

namespace rep {

namespace {

constexpr size_t kBeginning = 1024;  // bytes by which a file is known
constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr int kMaxIndexDepth = 3;  // {"weight_map": {name: file}}
constexpr size_t kMaxShards = 10000;

std::string beginning_of(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code failed;
  if (fs::is_directory(path, failed)) {
    for (const char* name : {"model.safetensors", "model.safetensors.index.json",
                             "pytorch_model.bin", "pytorch_model.bin.index.json"}) {
      if (!fs::exists(fs::path(path) / name, failed)) continue;
      throw Error(path + ": a folder; name the file in it: " + (fs::path(path) / name).string());
    }
    throw Error(path + ": a folder; name a file of weights in it");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw Error(path + ": cannot be read" +
                (fs::exists(path, failed) ? "" : " (there is no such file)") +
                "; weights are files of safetensors, numpy's .npz or PyTorch only");
  }
  std::string bytes(kBeginning, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (bytes.empty()) throw Error(path + ": an empty file; fetch it again");
  return bytes;
}

// Text, if it is some, in lower case and without what stands before its first word.
std::string text_of(const std::string& bytes) {
  if (bytes.find('\0') != std::string::npos) return "";
  std::string text = begins_with(bytes, "\xef\xbb\xbf") ? bytes.substr(3) : bytes;
  text.erase(0, text.find_first_not_of(" \t\r\n"));
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// "git lfs pull" for git-lfs's stand-in (its specification: lines "version", "oid", "size").
void refuse_pointer(const std::string& path, const std::string& text) {
  if (!begins_with(text, "version https://git-lfs.github.com/spec/")) return;
  std::string size;
  const size_t at = text.find("\nsize ");
  for (size_t i = at == std::string::npos ? text.size() : at + 6;
       i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])) && size.size() < 18;
       ++i) {
    size += text[i];
  }
  throw Error(path + ": a git-lfs pointer, which stands for " +
              (size.empty() ? "a file" : "a file of " + size + " bytes") +
              ", not the weights: 'git lfs pull' in its folder fetches them");
}

void refuse_page(const std::string& path, const std::string& text) {
  if (begins_with(text, "<!doctype") || begins_with(text, "<html") || begins_with(text, "<head")) {
    throw Error(path +
                ": a web page (HTML), not weights: the download got the page about the file, a "
                "login or an error; fetch the file itself (on Hugging Face its link has /resolve/ "
                "where the page's has /blob/)");
  }
  if (begins_with(text, "<?xml") || begins_with(text, "<error")) {
    throw Error(path +
                ": an XML message, not weights: the download got an error of its server; open the "
                "file to read it, and fetch the weights again");
  }
}

void refuse_known(const std::string& path, const std::string& bytes) {
  struct Known {
    std::string magic;
    const char* is;
  };
  const Known kinds[] = {
      {"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras); convert it with its own library to safetensors"},
      {"\x93NUMPY", "one numpy array (.npy); weights are the .npz of several"},
      {"GGUF", "a GGUF file; fetch the model as safetensors"},
      {"\x1f\x8b", "packed with gzip; unpack it first"},
      {"\x28\xb5\x2f\xfd", "packed with zstd; unpack it first"},
      {"\xfd"
       "7zXZ",
       "packed with xz; unpack it first"},
      {"BZh", "packed with bzip2; unpack it first"},
      {"7z\xbc\xaf\x27\x1c", "packed with 7-Zip; unpack it first"},
  };
  for (const Known& kind : kinds) {
    if (begins_with(bytes, kind.magic)) throw Error(path + ": " + kind.is);
  }
  if (bytes.size() > 262 && bytes.compare(257, 5, "ustar") == 0) {
    throw Error(path + ": a tar archive; unpack it first");
  }
}

WeightFormat format_of_zip(const std::string& path) {
  const ZipFile file(path);
  bool arrays = !file.entries().empty();
  for (const auto& [name, entry] : file.entries()) {
    const size_t slash = name.find('/');
    if (slash != std::string::npos && name.substr(slash + 1) == "data.pkl") {
      return WeightFormat::kTorch;
    }
    arrays = arrays && ends_with(name, ".npy");
  }
  if (arrays) return WeightFormat::kNpz;
  throw Error(path +
              ": a zip archive, but neither one that torch.save wrote (it has no data.pkl) nor "
              "numpy's .npz (of .npy arrays); if weights lie in it, unpack it first");
}

// ---- shards ----

// From the name of a tensor to its file.
std::map<std::string, std::string> read_index(const std::string& path) {
  const auto fail = [&](const std::string& problem) {
    throw Error(path + ": " + problem +
                ": weights in several files are named by a JSON index with a weight_map of "
                "tensors' names and files, as model.safetensors.index.json is");
  };
  Json json;
  try {
    json = Json::parse(read_file(path, kMaxIndexBytes), [&](int depth, Json::parse_event_t, Json&) {
      if (depth > kMaxIndexDepth) throw Error(path + ": the JSON is nested too deeply");
      return true;
    });
  } catch (const Json::exception&) {
    fail("not valid JSON");
  }
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    fail("JSON, but no index");
  }
  std::map<std::string, std::string> index;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!is_tensor_name(name) || !file.is_string()) fail("a tensor or its file has no fit name");
    const std::string shard = file.get<std::string>();
    // Beside the index, and nowhere else.
    if (!is_tensor_name(shard) || shard.find_first_of("/\\") != std::string::npos || shard == "." ||
        shard == "..") {
      fail("a shard is not a plain file name");
    }
    index[name] = shard;
  }
  if (index.empty()) fail("the index names no tensor");
  return index;
}

// The files that an index names, all of which are there.
std::set<std::string> shards_of(const std::string& path,
                                const std::map<std::string, std::string>& index) {
  std::set<std::string> shards;
  for (const auto& [name, shard] : index) shards.insert(shard);
  if (shards.size() > kMaxShards) throw Error(path + ": the index names more than 10000 files");
  for (const std::string& shard : shards) {
    std::error_code failed;
    if (std::filesystem::exists(std::filesystem::path(path).parent_path() / shard, failed))
      continue;
    throw Error(path + ": of the " + std::to_string(shards.size()) + " files that it names '" +
                shard + "' is not beside it; fetch them all");
  }
  return shards;
}

WeightFile read_shards(const std::string& path) {
  const std::map<std::string, std::string> index = read_index(path);
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const std::set<std::string> shards = shards_of(path, index);
  WeightFile result;
  result.files = {path};
  int64_t bytes = 0;
  size_t found = 0;
  for (const std::string& shard : shards) {
    const std::string file = (folder / shard).string();
    if (weight_format(file) == WeightFormat::kIndex) {
      throw Error(path + ": the shard '" + shard + "' is an index itself; fetch the weights again");
    }
    result.files.push_back(file);
    for (auto& [name, tensor] : read_weight_file(file).tensors) {
      const auto entry = index.find(name);
      if (entry == index.end() || entry->second != shard) continue;
      bytes += static_cast<int64_t>(tensor.nbytes());
      if (bytes > kMaxTensorBytes) throw Error(path + ": the tensors take more than 16 GiB");
      result.tensors.emplace_back(name, tensor);
      ++found;
    }
  }
  if (found == index.size()) return result;
  std::set<std::string> names;
  for (const auto& [name, tensor] : result.tensors) names.insert(name);
  for (const auto& [name, shard] : index) {
    if (names.count(name) > 0) continue;
    throw Error(path + ": tensor '" + name + "' is not in " + shard +
                ", where the index has it; fetch the index and its files again");
  }
  return result;
}

// The tensors whose names begin with `key` and a dot (a slash in Flax's names), without it.
NamedTensors part_of(const std::string& path, const NamedTensors& tensors, const std::string& key) {
  NamedTensors part;
  std::set<std::string> first_words;
  for (const auto& [name, tensor] : tensors) {
    if (name.size() > key.size() + 1 && begins_with(name, key) &&
        (name[key.size()] == '.' || name[key.size()] == '/')) {
      part.emplace_back(name.substr(key.size() + 1), tensor);
    }
    first_words.insert(name.substr(0, name.find_first_of("./")));
  }
  if (!part.empty()) return part;
  std::string words;
  size_t shown = 0;
  for (const std::string& word : first_words) {
    if (++shown > 12) break;
    words += (words.empty() ? "'" : ", '") + word + "'";
  }
  throw Error(path + ": weights_key: no tensor's name begins with '" + key +
              "' and a dot; names begin with " + words + (shown > 12 ? ", ..." : ""));
}

}  // namespace

WeightFormat weight_format(const std::string& path) {
  const std::string bytes = beginning_of(path);
  if (begins_with(bytes, "PK")) return format_of_zip(path);
  // A safetensors file: the length of its JSON header in 8 bytes, of which the last are 0, then it.
  if ((bytes.size() > 8 && bytes[8] == '{' && bytes[7] == '\0') ||
      ends_with(path, ".safetensors")) {
    // A page or a pointer under that name is none all the same.
    const std::string text = text_of(bytes);
    refuse_pointer(path, text);
    refuse_page(path, text);
    return WeightFormat::kSafetensors;
  }
  if (begins_with(bytes, "\x80\x02")) return WeightFormat::kTorch;
  const std::string text = text_of(bytes);
  refuse_pointer(path, text);
  refuse_page(path, text);
  if (begins_with(text, "{")) return WeightFormat::kIndex;
  refuse_known(path, bytes);
  throw Error(path +
              ": not a file of weights that is known here: safetensors, numpy's .npz and PyTorch's "
              "zip files only");
}

std::string digest_of_weight_files(const std::vector<std::string>& files,
                                   std::vector<std::string>* each) {
  std::string lines, digest;
  for (const std::string& file : files) {
    digest = sha256_of_file(file);
    lines += digest + " " + std::filesystem::path(file).filename().string() + "\n";
    if (each) each->push_back(digest);
  }
  return files.size() == 1 ? digest : sha256_of_text(lines);
}

std::string digest_of_weight_file(const std::string& path) {
  std::vector<std::string> files{path};
  if (weight_format(path) == WeightFormat::kIndex) {
    for (const std::string& shard : shards_of(path, read_index(path))) {
      files.push_back((std::filesystem::path(path).parent_path() / shard).string());
    }
  }
  return digest_of_weight_files(files);
}

WeightFile read_weight_file(const std::string& path, const std::string& key) {
  WeightFile file;
  switch (weight_format(path)) {
    case WeightFormat::kSafetensors: {
      Safetensors read = read_safetensors(path);
      file.tensors = std::move(read.tensors);
      file.metadata = std::move(read.metadata);
      break;
    }
    case WeightFormat::kNpz:
      file.tensors = read_npz(path);
      break;
    case WeightFormat::kTorch:
      file.tensors = read_torch_zip(path, key, &file.note);
      file.files = {path};
      return file;
    case WeightFormat::kIndex:
      file = read_shards(path);
      break;
  }
  if (file.files.empty()) file.files = {path};
  if (!key.empty()) file.tensors = part_of(path, file.tensors, key);
  return file;
}

}  // namespace rep
