#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/suggest.h"

namespace rep {

/// The named choices of one kind: methods, data sets, backbones, metrics. `Kind` is what a choice
/// is made of (its factory and so on) and names itself in `Kind::kKind`, e.g. "method".
template <class Kind>
class Registry {
 public:
  struct Entry {
    std::string name;
    std::string citation;
    Kind value;
  };

  static Registry& get() {
    static Registry registry;
    return registry;
  }

  void add(Entry entry) { entries_.emplace(entry.name, std::move(entry)); }

  /// Throws Error, with a suggestion, when nothing has that name.
  const Entry& at(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found != entries_.end()) return found->second;
    throw Error("unknown " + std::string(Kind::kKind) + " '" + name + "'" +
                did_you_mean(name, names()) + "; known: " + join(names()));
  }

  /// Sorted by name.
  const std::map<std::string, Entry>& entries() const { return entries_; }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, entry] : entries_) names.push_back(name);
    return names;
  }

 private:
  std::map<std::string, Entry> entries_;
};

/// Registers at start-up: `static const Registered<MethodKind> kL2p{"l2p", "Wang ... 2022",
/// {...}};`
template <class Kind>
struct Registered {
  Registered(std::string name, std::string citation, Kind value) {
    Registry<Kind>::get().add({std::move(name), std::move(citation), std::move(value)});
  }
};

}  // namespace rep
