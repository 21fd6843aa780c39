// rep schema: the configuration's JSON Schema, by which editors complete and check YAML.
#include <iostream>

#include "cli/commands.h"
#include "run/keys.h"

namespace rep {

void add_schema_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "schema", "Print the JSON Schema of a configuration, by which editors complete and check it");
  command->footer(
      "A configuration that begins with this line is checked as it is written, where the editor\n"
      "has a YAML language server:\n"
      "  # yaml-language-server: $schema=rep.schema.json\n"
      "Example: rep schema > rep.schema.json");
  command->callback([] { std::cout << to_text(configuration_schema(), 1) << "\n"; });
}

}  // namespace rep
