// rep completion: scripts by which bash, zsh and fish complete a command line. They are made from
// the program's own commands, options and keys, so that they cannot lag behind.
#include <algorithm>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "core/registry.h"
#include "core/suggest.h"
#include "data/dataset.h"
#include "methods/method.h"
#include "nn/backbone.h"
#include "run/keys.h"

namespace rep {
namespace {

using Words = std::vector<std::string>;

struct CompletedOption {
  Words names;  // "-q", "--quiet"; none: a positional argument
  std::string description;
  bool takes_value = false;
  bool takes_key = false;  // KEY=VALUE of a configuration
  Words choices;           // what the value may be; empty: anything, such as a file
};

struct CompletedCommand {
  std::string name, description;
  std::vector<CompletedOption> options;
};

std::string joined(const Words& words) { return join(words, " "); }

/// The words of CLI::IsMember, which says them as a part of the type: "TEXT:{a,b}".
Words choices_in(const std::string& type_name) {
  const size_t begin = type_name.find('{'), end = type_name.find('}');
  Words words;
  if (begin == std::string::npos || end == std::string::npos) return words;
  std::istringstream list(type_name.substr(begin + 1, end - begin - 1));
  for (std::string word; std::getline(list, word, ',');) words.push_back(word);
  return words;
}

CompletedOption describe(const CLI::Option& option) {
  CompletedOption described;
  for (const std::string& name : option.get_snames()) described.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) described.names.push_back("--" + name);
  described.description = option.get_description();
  described.takes_value = option.get_items_expected_max() > 0;
  described.takes_key = option.get_type_name().rfind("KEY=", 0) == 0;
  described.choices = choices_in(option.get_type_name());
  return described;
}

std::vector<CompletedCommand> commands_of(const CLI::App& app) {
  std::vector<CompletedCommand> commands;
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    CompletedCommand described{command->get_name(), command->get_description(), {}};
    for (const CLI::Option* option : command->get_options()) {
      described.options.push_back(describe(*option));
    }
    commands.push_back(std::move(described));
  }
  return commands;
}

/// What --set takes: "train.epochs", and "train.augment=l2p" where the values are words.
struct KeyWords {
  Words keys, values;

  void add(const std::string& key, const Words& words) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    for (const std::string& word : words) {
      const std::string whole = key + "=" + word;
      if (std::find(values.begin(), values.end(), whole) == values.end()) values.push_back(whole);
    }
  }
  void add_fields(const Json& fields) {
    for (const Json& field : fields) {
      Words words;
      if (field["type"] == "boolean") words = {"true", "false"};
      for (const Json& word : field.value("enum", Json::array())) words.push_back(word);
      if (field["type"] != "object") add(field["key"], words);
    }
  }
};

KeyWords key_words() {
  const Json keys = configuration_keys();
  KeyWords words;
  words.add_fields(keys["experiment"]);
  for (const char* kind : {"datasets", "methods"}) {
    for (const auto& [name, fields] : keys[kind].items()) words.add_fields(fields);
  }
  for (const char* key : {"dataset", "dataset.name"}) {
    words.add(key, Registry<DatasetKind>::get().names());
  }
  for (const char* key : {"method", "method.name"}) {
    words.add(key, Registry<MethodKind>::get().names());
  }
  Words backbones;
  for (const auto& [family, entry] : Registry<BackboneFamily>::get().entries()) {
    for (const auto& [name, citation] : entry.value.members()) backbones.push_back(name);
  }
  for (const char* key : {"backbone.name", "efficiency.query_backbone.name"}) {
    words.add(key, backbones);
  }
  return words;
}

std::string script_head(const std::string& comment) {
  return comment +
         "\n# Made by `rep completion`, from the program's own commands, options and keys.\n";
}

std::string with_newlines(const Words& words) {
  return words.empty() ? "" : join(words, "\n") + "\n";
}

constexpr char kBashFunction[] = R"(
_rep() {
  local line=${COMP_LINE:0:COMP_POINT} current previous word command='' words=''
  local -a before
  current=${line##*[[:space:]]}
  read -ra before <<<"${line%"$current"}"
  for word in "${before[@]}"; do
    if [[ -z $command && " $_rep_commands " == *" $word "* ]]; then command=$word; fi
  done
  previous=${before[-1]}
  # Bash splits words at = and replaces only what follows.
  local kept=''
  if [[ $current == *=* && $COMP_WORDBREAKS == *=* ]]; then kept=${current%"${current##*=}"}; fi
  if [[ $current == --*=* ]]; then
    previous=${current%%=*} current=${current#*=}
    kept=${kept#"$previous="}
  fi
  COMPREPLY=()
  case "$command $previous" in
)";

constexpr char kBashEnd[] = R"(  esac
  if [[ $words == keys ]]; then
    if [[ $current == *=* ]]; then
      words=$_rep_values
    else
      words=$_rep_keys
      compopt -o nospace 2>/dev/null
    fi
  fi
  local IFS=$' \t\n'
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}
complete -o bashdefault -o default -F _rep rep
)";

std::string bash_script(const std::vector<CompletedCommand>& commands, const KeyWords& keys) {
  Words names;
  for (const CompletedCommand& command : commands) names.push_back(command.name);
  Words with_equals = keys.keys;
  for (std::string& key : with_equals) key += "=";
  std::ostringstream out;
  out << script_head("# bash completion for rep") << "_rep_commands='" << joined(names)
      << "'\n_rep_keys='" << with_newlines(with_equals) << "'\n_rep_values='"
      << with_newlines(keys.values) << "'\n"
      << kBashFunction;
  for (const CompletedCommand& command : commands) {
    Words options, positional;
    for (const CompletedOption& option : command.options) {
      options.insert(options.end(), option.names.begin(), option.names.end());
      if (option.names.empty()) positional = option.choices;
      if (!option.takes_value || option.names.empty()) continue;
      Words patterns;
      for (const std::string& name : option.names) {
        patterns.push_back("'" + command.name + " " + name + "'");
      }
      out << "    " << join(patterns, " | ") << ") words='"
          << (option.takes_key ? "keys" : joined(option.choices)) << "' ;;\n";
    }
    out << "    '" << command.name << " '*) if [[ $current == -* ]]; then words='"
        << joined(options) << "'; else words='" << joined(positional) << "'; fi ;;\n";
  }
  out << "    *) words=\"$_rep_commands --help --version\" ;;\n" << kBashEnd;
  return out.str();
}

/// `text` with `before` in front of each of its characters that is one of `special`.
std::string escaped(std::string text, const char* special, const std::string& before) {
  for (size_t at = 0; (at = text.find_first_of(special, at)) != std::string::npos; ++at) {
    text.insert(at, before);
    at += before.size();
  }
  return text;
}

/// A word of zsh, whatever is in it.
std::string zsh_quoted(const std::string& text) { return "'" + escaped(text, "'", "'\\'") + "'"; }

constexpr char kZshKeys[] = R"(
_rep_key_or_value() {
  if [[ $PREFIX == *=* ]]; then
    compadd -a _rep_values
  else
    compadd -q -S '=' -a _rep_keys
  fi
}

_rep() {
  if (( CURRENT == 2 )); then
    _describe command _rep_commands
    _arguments '--help[Print this help]' '--version[Print the version]'
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
)";

constexpr char kZshEnd[] = R"(  esac
}

if [[ $funcstack[1] == _rep ]]; then _rep "$@"; else compdef _rep rep; fi
)";

std::string zsh_script(const std::vector<CompletedCommand>& commands, const KeyWords& keys) {
  std::ostringstream out;
  out << "#compdef rep\n"
      << script_head("# zsh completion for rep") << "typeset -ga _rep_commands=(\n";
  for (const CompletedCommand& command : commands) {
    out << "  " << zsh_quoted(command.name + ":" + command.description) << "\n";
  }
  out << ")\ntypeset -ga _rep_keys=(\n"
      << with_newlines(keys.keys) << ")\ntypeset -ga _rep_values=(\n"
      << with_newlines(keys.values) << ")\n"
      << kZshKeys;
  for (const CompletedCommand& command : commands) {
    out << "    " << command.name << ")\n      _arguments -s";
    for (const CompletedOption& option : command.options) {
      const std::string value = option.takes_key         ? "_rep_key_or_value"
                                : option.choices.empty() ? "_files"
                                                         : "(" + joined(option.choices) + ")";
      if (option.names.empty()) out << " \\\n        " << zsh_quoted("*:argument:" + value);
      for (const std::string& name : option.names) {
        const std::string meaning = "[" + escaped(option.description, "[]:\\", "\\") + "]";
        out << " \\\n        "
            << zsh_quoted("*" + name + meaning + (option.takes_value ? ":value:" + value : ""));
      }
    }
    out << "\n      ;;\n";
  }
  out << kZshEnd;
  return out.str();
}

constexpr char kFishKeys[] = R"(
function __rep_keys
  if string match -q '*=*' -- (commandline -ct)
    printf '%s\n' $__rep_values
  else
    printf '%s=\n' $__rep_keys
  end
end

complete -c rep -f
complete -c rep -n __fish_use_subcommand -l help -d 'Print this help'
complete -c rep -n __fish_use_subcommand -l version -d 'Print the version'
)";

std::string fish_quoted(const std::string& text) { return "'" + escaped(text, "'\\", "\\") + "'"; }

std::string fish_script(const std::vector<CompletedCommand>& commands, const KeyWords& keys) {
  std::ostringstream out;
  out << script_head("# fish completion for rep") << "set -g __rep_keys " << joined(keys.keys)
      << "\nset -g __rep_values " << joined(keys.values) << "\n"
      << kFishKeys;
  for (const CompletedCommand& command : commands) {
    const std::string within =
        "complete -c rep -n '__fish_seen_subcommand_from " + command.name + "'";
    out << "complete -c rep -n __fish_use_subcommand -a " << command.name << " -d "
        << fish_quoted(command.description) << "\n";
    for (const CompletedOption& option : command.options) {
      const std::string choices = option.takes_key ? "(__rep_keys)" : joined(option.choices);
      out << within;
      for (const std::string& name : option.names) {
        out << (name[1] == '-' ? " -l " + name.substr(2) : " -s " + name.substr(1));
      }
      if (!choices.empty()) {
        out << (option.names.empty() ? "" : " -x") << " -a " << fish_quoted(choices);
      } else if (option.names.empty()) {
        out << " -F";
      } else if (option.takes_value) {
        out << " -r -F";
      }
      if (!option.names.empty()) out << " -d " << fish_quoted(option.description);
      out << "\n";
    }
  }
  return out.str();
}

}  // namespace

void add_completion_command(CLI::App& app) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("completion", "Print a script by which a shell completes command lines");
  command->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "In ~/.bashrc: source <(rep completion bash)\n"
      "In ~/.zshrc, after compinit: source <(rep completion zsh)\n"
      "Once for fish: rep completion fish > ~/.config/fish/completions/rep.fish\n"
      "Example: rep completion bash > rep.bash");
  command->callback([&app, shell] {
    const std::vector<CompletedCommand> commands = commands_of(app);
    const KeyWords keys = key_words();
    std::cout << (*shell == "bash"  ? bash_script(commands, keys)
                  : *shell == "zsh" ? zsh_script(commands, keys)
                                    : fish_script(commands, keys));
  });
}

}  // namespace rep
