// Checkpoints of PyTorch: dicts of dicts, as each training script likes.
#include "formats/state_dict.h"

#include <algorithm>
#include <deque>
#include <set>

#include "core/error.h"
#include "formats/named_tensors.h"

namespace rep {

namespace {

using Value = PickleValue;
using Kind = Value::Kind;

// Where projects put the model, the one that they evaluate first: DINO's and iBOT's is the teacher.
constexpr const char* kUsualKeys[] = {"model", "state_dict", "teacher", "model_state_dict",
                                      "net",   "module",     "student", "backbone"};
constexpr int kMaxKeyDepth = 3;      // of dicts in dicts
constexpr int kMaxModuleDepth = 32;  // of modules in modules
constexpr size_t kMaxTensorName = 512;
constexpr size_t kMaxEntries = 1 << 20;  // looked at
constexpr size_t kShown = 12;            // keys in a message

// What of the checkpoint may be the model.
struct Candidate {
  std::string key;  // "" the root
  TensorDescriptions tensors;
};

template <class Visit>
void for_entries(const Value& dict, const Visit& visit) {
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    if (dict.items[i]->is(Kind::kText)) visit(dict.items[i]->text, *dict.items[i + 1]);
  }
}

// Collects the tensors of dicts and modules. Values may share parts, so that a small pickle can
// stand for any number of tensors: the entries that are looked at are bounded, not only the depth.
class TensorCollector {
 public:
  explicit TensorCollector(const std::string& path) : path_(path) {}

  TensorDescriptions tensors_of(const Value& value) {
    TensorDescriptions tensors;
    if (value.is(Kind::kObject)) {
      add_module(value, "", 0, tensors);
    } else if (value.is(Kind::kDict)) {
      for_entries(value, [&](const std::string& name, const Value& entry) {
        count();
        if (entry.is(Kind::kTensor)) tensors.emplace_back(joined("", name), &entry);
      });
    }
    return tensors;
  }

 private:
  // As Module.state_dict() names them.
  void add_module(const Value& module, const std::string& prefix, int depth,
                  TensorDescriptions& tensors) {
    if (depth > kMaxModuleDepth) fail();
    for_entries(module, [&](const std::string& name, const Value& value) {
      count();
      // Of Python's modules; a TorchScript module has its tensors and modules side by side.
      const bool parts = name == "_parameters" || name == "_buffers" || name == "_modules";
      if (value.is(Kind::kTensor)) {
        tensors.emplace_back(joined(prefix, name), &value);
      } else if (value.is(Kind::kObject) || (parts && value.is(Kind::kDict))) {
        add_module(value, parts ? prefix : joined(prefix, name) + ".", depth + 1, tensors);
      }
    });
  }

  // One text may name any number of entries: what is copied stays short.
  std::string joined(const std::string& prefix, const std::string& name) const {
    if (name.size() > kMaxTensorName || prefix.size() > kMaxTensorName || !is_tensor_name(name)) {
      throw Error(path_ +
                  ": a tensor's name is very long or has unprintable characters: save the " +
                  "model's state_dict() with other names");
    }
    return prefix + name;
  }

  void count() {
    if (++entries_ > kMaxEntries) fail();
  }
  [[noreturn]] void fail() const {
    throw Error(path_ +
                ": its modules are nested beyond any model's: save the model's state_dict() "
                "instead");
  }

  const std::string& path_;
  size_t entries_ = 0;
};

// Every dict and module that holds tensors, those nearer to the root first. `keys` receives the
// root's own keys.
std::vector<Candidate> find_candidates(const std::string& path, const Value& root,
                                       std::vector<std::string>& keys) {
  struct Spot {
    const Value* value;
    std::string key;
    int depth;
  };
  TensorCollector collector(path);
  std::vector<Candidate> candidates;
  std::set<const Value*> seen{&root};
  std::deque<Spot> open{{&root, "", 0}};
  while (!open.empty()) {
    const Spot place = open.front();
    open.pop_front();
    TensorDescriptions tensors = collector.tensors_of(*place.value);
    if (!tensors.empty()) candidates.push_back({place.key, std::move(tensors)});
    if (!place.value->is(Kind::kDict)) continue;
    for_entries(*place.value, [&](const std::string& name, const Value& value) {
      if (!is_tensor_name(name)) return;
      if (place.depth == 0 && keys.size() <= kShown) keys.push_back(name);
      const bool inside = value.is(Kind::kDict) || value.is(Kind::kObject);
      if (!inside || place.depth == kMaxKeyDepth || !seen.insert(&value).second) return;
      open.push_back({&value, place.key.empty() ? name : place.key + "." + name, place.depth + 1});
    });
  }
  return candidates;
}

std::string listed(const std::vector<Candidate>& candidates) {
  std::string text;
  for (size_t i = 0; i < std::min(candidates.size(), kShown); ++i) {
    const Candidate& candidate = candidates[i];
    const std::string name = candidate.key.empty() ? "its top" : "'" + candidate.key + "'";
    text += (i > 0 ? ", " : "") + name + " (" + std::to_string(candidate.tensors.size()) + ")";
  }
  return text + (candidates.size() > kShown ? ", ..." : "");
}

[[noreturn]] void fail_empty(const std::string& path, std::vector<std::string> keys) {
  if (keys.size() > kShown) {
    keys.resize(kShown);
    keys.push_back("...");
  }
  std::string text;
  for (const std::string& key : keys) text += (text.empty() ? "'" : ", '") + key + "'";
  throw Error(path + ": no tensors found" +
              (keys.empty() ? std::string() : " below its keys " + text) +
              ": save the model's state_dict()");
}

const Candidate& usual(const std::string& path, const std::vector<Candidate>& candidates) {
  const auto named = [&](const std::string& key) {
    return std::find_if(candidates.begin(), candidates.end(),
                        [&](const Candidate& candidate) { return candidate.key == key; });
  };
  for (const char* key : kUsualKeys) {
    if (named(key) != candidates.end()) return *named(key);
  }
  if (named("") != candidates.end()) return *named("");
  if (candidates.size() == 1) return candidates.front();
  throw Error(path + ": which of its parts is the model? Tensors lie in " + listed(candidates) +
              ": name one as weights_key beside weights");
}

}  // namespace

StateDict find_state_dict(const std::string& path, const PickleValue& root,
                          const std::string& key) {
  std::vector<std::string> keys;
  const std::vector<Candidate> candidates = find_candidates(path, root, keys);
  if (candidates.empty()) fail_empty(path, std::move(keys));
  // The longest key that `key` begins with; what is left of it begins tensors' names.
  const Candidate* chosen = nullptr;
  for (const Candidate& candidate : candidates) {
    const bool begins = candidate.key == key || key.rfind(candidate.key + ".", 0) == 0;
    if (candidate.key.empty() || key.empty() || !begins) continue;
    if (!chosen || candidate.key.size() > chosen->key.size()) chosen = &candidate;
  }
  std::string rest = key;
  if (chosen) {
    rest = key == chosen->key ? "" : key.substr(chosen->key.size() + 1);
  } else {
    chosen = &usual(path, candidates);
  }
  StateDict found;
  const std::string prefix = rest.empty() ? "" : rest + ".";
  for (const auto& [name, tensor] : chosen->tensors) {
    if (name.size() > prefix.size() && name.compare(0, prefix.size(), prefix) == 0) {
      found.tensors.emplace_back(name.substr(prefix.size()), tensor);
    }
  }
  if (found.tensors.empty()) {
    throw Error(path + ": weights_key: nothing is called '" + key + "' in it; tensors lie in " +
                listed(candidates));
  }
  if (key.empty() && candidates.size() > 1) {
    found.note = "takes " + (chosen->key.empty() ? "its top" : "'" + chosen->key + "'") + " of " +
                 listed(candidates) + " tensors; weights_key names another";
  }
  return found;
}

}  // namespace rep
