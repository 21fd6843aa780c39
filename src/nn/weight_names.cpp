#include "nn/weight_names.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "core/affix.h"
#include "core/error.h"

namespace rep {

namespace layout {
torch::Tensor keep(const torch::Tensor& x) { return x; }
torch::Tensor transposed(const torch::Tensor& x) { return x.t(); }
torch::Tensor as_token(const torch::Tensor& x) { return x.reshape({1, 1, x.size(0)}); }
torch::Tensor as_positions(const torch::Tensor& x) { return x.unsqueeze(0); }
}  // namespace layout

namespace {

bool has_prefix(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

bool has_any_prefix(const std::string& text, const std::vector<const char*>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const char* prefix) { return has_prefix(text, prefix); });
}

// What training puts beside a backbone, by the beginnings of its names: heads, text towers,
// decoders, losses.
const std::vector<const char*> kBeside = {"head",
                                          "fc.",
                                          "classifier",
                                          "cls_classifier",
                                          "distillation",
                                          "projector",
                                          "projection_head",
                                          "predictor",
                                          "dino_head",
                                          "dino_loss",
                                          "ibot_",
                                          "logit_scale",
                                          "logit_bias",
                                          "transformer.",
                                          "token_embedding.",
                                          "positional_embedding",
                                          "ln_final.",
                                          "text",
                                          "visual_projection.",
                                          "input_resolution",
                                          "context_length",
                                          "vocab_size",
                                          "decoder",
                                          "pooler.",
                                          "queue",
                                          "criterion",
                                          "loss",
                                          "mask_token",
                                          "n_averaged",
                                          "attn_mask",
                                          "opt/",
                                          "params/t",
                                          "params/b",
                                          "visual.head.",
                                          "ema_"};
constexpr size_t kShownTensors = 4;

struct FoundModel {
  const NameFamily* family;
  std::string prefix;
};

// The prefixes under which both tensors of a family stand.
std::vector<FoundModel> find_models(const std::set<std::string>& names) {
  std::vector<FoundModel> models;
  for (const NameFamily* family : {&timm_family(), &google_family(), &transformers_family(),
                                   &clip_family(), &transformers_clip_family()}) {
    const std::string marker = family->patches;
    for (const std::string& name : names) {
      if (!ends_with(name, marker)) continue;
      const std::string prefix = name.substr(0, name.size() - marker.size());
      const bool whole = prefix.empty() || prefix.back() == '.' || prefix.back() == '/';
      if (whole && names.count(prefix + family->token) > 0) models.push_back({family, prefix});
    }
  }
  return models;
}

std::string without_separator(const std::string& prefix) {
  return prefix.substr(0, prefix.size() - 1);
}

// Whether a tensor outside of `prefix` is known to be no part of the backbone there: its name, or
// what follows of it behind a part of the prefix.
bool stands_beside(const std::string& name, const std::string& prefix) {
  for (size_t i = 0; i <= prefix.size(); ++i) {
    const bool boundary = i == 0 || prefix[i - 1] == '.' || prefix[i - 1] == '/';
    if (boundary && has_prefix(name, prefix.substr(0, i)) &&
        has_any_prefix(name.substr(i), kBeside)) {
      return true;
    }
  }
  return false;
}

// "blocks.3." for "encoder.layer.3.norm1.weight", and what follows; nothing when it is no block's.
bool split_block(const NameFamily& family, const std::string& name, std::string& block,
                 std::string& rest) {
  for (const char* const begin : family.blocks) {
    const std::string prefix = begin;
    if (!has_prefix(name, prefix)) continue;
    size_t end = prefix.size();
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    if (end == prefix.size() || end == name.size() || (name[end] != '.' && name[end] != '/')) {
      continue;
    }
    block = "blocks." + name.substr(prefix.size(), end - prefix.size()) + ".";
    rest = name.substr(end + 1);
    return true;
  }
  return false;
}

// Renames one file's tensors.
class Renamer {
 public:
  Renamer(const NameFamily& family, const std::string& path, TimmTensors& result)
      : family_(family), path_(path), result_(result) {}

  /// `name` as the family has it, `full` as the file has it.
  void add(const std::string& name, const std::string& full, const torch::Tensor& tensor) {
    std::string block, rest;
    if (has_any_prefix(name, family_.left_out)) {
      // Nothing is said of a classifier's layers, as of head.* later on.
      if (!has_prefix(name, "pre_logits")) left_out_.push_back(full);
    } else if (!(split_block(family_, name, block, rest) &&
                 translated(family_.block, rest, block, full, tensor)) &&
               !translated(family_.outside, name, "", full, tensor)) {
      put(name, full, tensor);
    }
  }
  void add_beside(const std::string& name, const torch::Tensor& tensor) {
    if (!translated(family_.beside, name, "", name, tensor)) left_out_.push_back(name);
  }

  void finish() {
    join_qkv();
    result_.tensors.assign(by_name_.begin(), by_name_.end());
    if (left_out_.empty()) return;
    std::string note = std::to_string(left_out_.size()) +
                       (left_out_.size() == 1 ? " tensor is" : " tensors are") +
                       " no part of the backbone and left out: ";
    for (size_t i = 0; i < std::min(left_out_.size(), kShownTensors); ++i) {
      note += (i > 0 ? ", " : "") + left_out_[i];
    }
    result_.notes.push_back(note + (left_out_.size() > kShownTensors ? ", ..." : ""));
  }

 private:
  bool translated(const std::vector<Renaming>& table, const std::string& name,
                  const std::string& block, const std::string& full, const torch::Tensor& tensor) {
    for (const Renaming& row : table) {
      if (name != row.theirs) continue;
      if (tensor.dim() != row.dimensions) {
        throw Error(path_ + ": tensor '" + full + "' is " + describe(tensor) + ", not of " +
                    std::to_string(row.dimensions) + " dimensions: fetch the file again");
      }
      put(block + row.timm, full, row.convert(tensor));
      return true;
    }
    return false;
  }

  void put(const std::string& name, const std::string& full, const torch::Tensor& tensor) {
    if (!by_name_.emplace(name, tensor).second) {
      throw Error(path_ + ": tensors '" + result_.sources[name] + "' and '" + full +
                  "' are both timm's '" + name + "': fetch the file again");
    }
    result_.sources[name] = full;
  }

  // attn.{q,k,v}.{weight,bias} -> attn.qkv.{weight,bias}, rows [q | k | v].
  void join_qkv() {
    const std::string query = ".attn.q.";
    std::vector<std::string> queries;
    for (const auto& [name, tensor] : by_name_) {
      for (const char* part : {".attn.q.", ".attn.k.", ".attn.v."}) {
        const size_t at = name.find(part);
        if (at == std::string::npos) continue;
        queries.push_back(std::string(name).replace(at, query.size(), query));
      }
    }
    std::sort(queries.begin(), queries.end());
    queries.erase(std::unique(queries.begin(), queries.end()), queries.end());
    for (const std::string& name : queries) join(name, name.find(query));
  }

  void join(const std::string& name, size_t at) {
    const auto part = [&](const std::string& letter) {
      return std::string(name).replace(at, 8, ".attn." + letter + ".");  // 8: of ".attn.q."
    };
    std::vector<torch::Tensor> parts;
    std::string sources;
    for (const char* letter : {"q", "k", "v"}) {
      const auto found = by_name_.find(part(letter));
      if (found == by_name_.end() || found->second.dim() == 0 ||
          (!parts.empty() && (found->second.sizes() != parts[0].sizes() ||
                              found->second.scalar_type() != parts[0].scalar_type()))) {
        throw Error(path_ + ": the query, key and value arrays of '" + part("qkv") +
                    "' are not all there, of one shape and type: fetch the file again");
      }
      parts.push_back(found->second);
      sources += (sources.empty() ? "" : ", ") + result_.sources[part(letter)];
    }
    for (const char* letter : {"q", "k", "v"}) {
      by_name_.erase(part(letter));
      result_.sources.erase(part(letter));
    }
    put(part("qkv"), sources, torch::cat(parts));
  }

  const NameFamily& family_;
  const std::string& path_;
  TimmTensors& result_;
  std::map<std::string, torch::Tensor> by_name_;
  std::vector<std::string> left_out_;
};

TimmTensors as_they_are(const NamedTensors& tensors) {
  TimmTensors result;
  result.tensors = tensors;
  for (const auto& [name, tensor] : tensors) result.sources[name] = name;
  return result;
}

}  // namespace

TimmTensors renamed(const NamedTensors& tensors, const NameFamily& family,
                    const std::string& prefix, const std::string& path) {
  TimmTensors result;
  if (!prefix.empty()) {
    result.notes.push_back("names begin with '" + prefix + "', which is taken away");
  }
  if (*family.name != '\0') {
    result.notes.push_back(std::string("has the names of ") + family.name +
                           ", translated to timm's");
  }
  Renamer renamer(family, path, result);
  NamedTensors inside;
  for (const auto& [name, tensor] : tensors) {
    if (has_prefix(name, prefix)) {
      inside.emplace_back(name.substr(prefix.size()), tensor);
    } else {
      renamer.add_beside(name, tensor);
    }
  }
  if (family.prepare) {
    for (const auto& [name, tensor, source] : family.prepare(inside)) {
      renamer.add(name, prefix + source, tensor);
    }
  } else {
    for (const auto& [name, tensor] : inside) renamer.add(name, prefix + name, tensor);
  }
  renamer.finish();
  return result;
}

TimmTensors to_timm_names(const NamedTensors& tensors, const std::string& path) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) names.insert(name);
  const std::vector<FoundModel> models = find_models(names);
  if (models.empty()) return as_they_are(tensors);
  if (models.size() > 1) {
    std::string places;
    for (const FoundModel& model : models) {
      const bool top = model.prefix.empty();
      places += (places.empty() ? "" : " and ") +
                (top ? std::string("at its top") : "'" + without_separator(model.prefix) + "'");
    }
    throw Error(path + ": which of its models is meant? They lie below " + places +
                ": name one as weights_key beside weights");
  }
  const FoundModel& model = models.front();
  for (const auto& [name, tensor] : tensors) {
    if (has_prefix(name, model.prefix) || stands_beside(name, model.prefix)) continue;
    TimmTensors result = as_they_are(tensors);
    result.hint = "; the file has a ViT below '" + without_separator(model.prefix) +
                  "', beside tensors that are not known ('" + name +
                  "'): weights_key: " + without_separator(model.prefix) + " takes it alone";
    return result;
  }
  return renamed(tensors, *model.family, model.prefix, path);
}

}  // namespace rep
