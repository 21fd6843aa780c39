// rep list: the registered choices and where each comes from, and the keys of a configuration.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "core/error.h"
#include "core/json.h"
#include "core/metrics.h"
#include "core/registry.h"
#include "data/dataset.h"
#include "methods/method.h"
#include "nn/backbone.h"
#include "run/keys.h"

namespace rep {
namespace {

template <class Kind>
Json entries() {
  Json list = Json::array();
  for (const auto& [name, entry] : Registry<Kind>::get().entries()) {
    list.push_back({{"name", name}, {"citation", entry.citation}});
  }
  return list;
}

void print_table(const Json& lists) {
  for (const auto& [kind, list] : lists.items()) {
    size_t width = 0;
    for (const Json& entry : list) {
      width = std::max(width, entry["name"].get_ref<const std::string&>().size());
    }
    std::cout << kind << "\n" << std::left;
    for (const Json& entry : list) {
      std::cout << "  " << std::setw(static_cast<int>(width))
                << entry["name"].get_ref<const std::string&>() << "  "
                << entry["citation"].get_ref<const std::string&>() << "\n";
    }
  }
}

struct ListArguments {
  std::string kind;  // "": all but keys
  bool json = false, markdown = false;
};

void list_keys(const ListArguments& arguments) {
  const Json keys = configuration_keys();
  std::cout << (arguments.json       ? to_text(keys, 1) + "\n"
                : arguments.markdown ? keys_as_markdown(keys)
                                     : keys_as_text(keys));
}

void list(const ListArguments& arguments) {
  if (arguments.kind == "keys") return list_keys(arguments);
  if (arguments.markdown) throw Error("--markdown: is for `rep list keys`; add that, or remove it");
  Json backbones = Json::array();
  for (const auto& [family, entry] : Registry<BackboneFamily>::get().entries()) {
    for (const auto& [name, citation] : entry.value.members()) {
      backbones.push_back({{"name", name}, {"citation", citation}});
    }
  }
  Json lists{{"methods", entries<MethodKind>()},
             {"datasets", entries<DatasetKind>()},
             {"backbones", backbones},
             {"metrics", entries<Metric>()}};
  if (!arguments.kind.empty()) lists = Json{{arguments.kind, lists[arguments.kind]}};
  if (arguments.json) {
    std::cout << to_text(lists, 2) << "\n";
  } else {
    print_table(lists);
  }
}

}  // namespace

void add_list_command(CLI::App& app) {
  const auto arguments = std::make_shared<ListArguments>();
  CLI::App* command =
      app.add_subcommand("list", "What may be named in a configuration, with citations");
  command
      ->add_option("kind", arguments->kind,
                   "Only these: methods, datasets, backbones or metrics; or keys: every key of a "
                   "configuration with its default, values and meaning")
      ->check(CLI::IsMember({"methods", "datasets", "backbones", "metrics", "keys"}));
  CLI::Option* json = command->add_flag("--json", arguments->json, "Print JSON");
  command->add_flag("--markdown", arguments->markdown, "Print keys as docs/configuration.md")
      ->excludes(json);
  command->footer("Example: rep list keys");
  command->callback([arguments] { list(*arguments); });
}

}  // namespace rep
