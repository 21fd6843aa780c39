// What shells offer at the end of a command line, by the scripts of rep completion.
#include <set>

#include "tests/run_command.h"

namespace rep {
namespace {

using Words = std::set<std::string>;

std::string script(const std::string& shell) {
  static const std::string folder = fresh_folder("completion");
  const std::string path = folder + "/rep." + shell;
  if (!std::filesystem::exists(path)) {
    const Finished made = rep_command("completion " + shell + " > " + path);
    EXPECT_EQ(made.exit_code, 0) << made.output;
  }
  return path;
}

Words words_in(const std::string& lines) {
  Words words;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty()) words.insert(line);
  }
  return words;
}

/// What bash would put in place of the last word of `line`, of which it replaces only what follows
/// an equals sign.
Words bash_offers(const std::string& line) {
  const std::string ask =
      write_text(script("bash") + ".ask", "source " + script("bash") + "\nCOMP_LINE='" + line +
                                              "'\nCOMP_POINT=${#COMP_LINE}\n_rep\nprintf '%s\\n' "
                                              "\"${COMPREPLY[@]}\"\n");
  const Finished bash = shell_command("bash --norc --noprofile " + ask);
  EXPECT_EQ(bash.exit_code, 0) << bash.output;
  return words_in(bash.output);
}

bool is_installed(const std::string& shell) {
  return shell_command("command -v " + shell).exit_code == 0;
}

TEST(BashCompletion, OffersCommandsAndTheirOptions) {
  const Words commands = bash_offers("rep ");
  for (const char* command : {"run", "sweep", "completion", "--help", "--version"}) {
    EXPECT_EQ(commands.count(command), 1U) << command;
  }
  EXPECT_EQ(bash_offers("rep sw"), Words{"sweep"});
  EXPECT_EQ(bash_offers("OMP_NUM_THREADS=1 build/release/rep sw"), Words{"sweep"});
  EXPECT_EQ(bash_offers("rep run c.yaml --lim"), (Words{"--limit-train", "--limit-test"}));
  EXPECT_EQ(bash_offers("rep report --html"), Words{"--html"});
}

TEST(BashCompletion, OffersTheWordsOfAnOptionOrArgument) {
  EXPECT_EQ(bash_offers("rep report x --format "),
            (Words{"table", "markdown", "latex", "csv", "json"}));
  EXPECT_EQ(bash_offers("rep report x --format=m"), Words{"markdown"});
  EXPECT_EQ(bash_offers("rep completion "), (Words{"bash", "zsh", "fish"}));
  EXPECT_EQ(bash_offers("rep list k"), Words{"keys"});
  EXPECT_EQ(bash_offers("rep run "), Words{}) << "then bash offers files";
  EXPECT_EQ(bash_offers("rep run c.yaml --output "), Words{});
}

TEST(BashCompletion, OffersKeysAndTheirValues) {
  EXPECT_EQ(bash_offers("rep run c.yaml --set train.optimizer.b"),
            (Words{"train.optimizer.beta1=", "train.optimizer.beta2="}));
  EXPECT_EQ(bash_offers("rep run c.yaml --set train.augment="),
            (Words{"l2p", "coda", "crop", "none"}));
  EXPECT_EQ(bash_offers("rep run c.yaml --set train.epochs=1 --set train.schedule=cos"),
            Words{"cosine"});
  EXPECT_EQ(bash_offers("rep run c.yaml --set method=l"), (Words{"l2p", "linear_probe", "lwf"}));
  EXPECT_EQ(bash_offers("rep sweep c.yaml --grid method.top"), Words{"method.top_k="});
  EXPECT_EQ(bash_offers("rep run c.yaml --set backbone.name=vit_na"), Words{"vit_nano"});
  EXPECT_EQ(bash_offers("rep run c.yaml --set train.drop_last=t"), Words{"true"});
}

TEST(BashCompletion, WorksAtAPrompt) {
  if (!is_installed("script")) GTEST_SKIP() << "no script(1) to give bash a terminal";
  const std::string folder = std::filesystem::path(REP_EXECUTABLE).parent_path().string();
  const std::string typed = write_text(script("bash") + ".typed",
                                       "PATH=" + folder + ":$PATH; source " + script("bash") +
                                           "\nrep compl\tba\t> /dev/null && echo it-ran\nexit\n");
  const Finished bash =
      shell_command("TERM=dumb script -qec 'bash --norc --noprofile -i' /dev/null < " + typed);
  EXPECT_NE(bash.output.find("rep completion bash > /dev/null"), std::string::npos) << bash.output;
  EXPECT_NE(bash.output.find("\nit-ran"), std::string::npos) << bash.output;
}

TEST(ZshCompletion, IsAScriptOfZsh) {
  if (!is_installed("zsh")) GTEST_SKIP() << "no zsh";
  const Finished parsed = shell_command("zsh -n " + script("zsh"));
  EXPECT_EQ(parsed.exit_code, 0) << parsed.output;
  const Finished loaded = shell_command("zsh -f -c 'autoload -U compinit; compinit -D; source " +
                                        script("zsh") + "; print $_comps[rep]'");
  EXPECT_EQ(loaded.output, "_rep\n");
}

TEST(FishCompletion, OffersTheSame) {
  if (!is_installed("fish")) GTEST_SKIP() << "no fish";
  const auto offers = [](const std::string& line) {
    const Finished fish =
        shell_command("HOME=" + ::testing::TempDir() + " fish --no-config -c 'source " +
                      script("fish") + "; complete -C \"" + line + "\"' | cut -f 1");
    EXPECT_EQ(fish.exit_code, 0) << fish.output;
    return words_in(fish.output);
  };
  EXPECT_EQ(offers("rep sw"), Words{"sweep"});
  EXPECT_EQ(offers("rep run --set train.optimizer.b"),
            (Words{"train.optimizer.beta1=", "train.optimizer.beta2="}));
  EXPECT_EQ(offers("rep run --set train.schedule=cos"), Words{"train.schedule=cosine"});
  EXPECT_EQ(offers("rep report --format m"), Words{"markdown"});
  EXPECT_EQ(offers("rep completion z"), Words{"zsh"});
}

TEST(Completion, RefusesAnotherShell) { EXPECT_EQ(rep_command("completion tcsh").exit_code, 2); }

}  // namespace
}  // namespace rep
