// cmake --install: everything is where GNU and Debian look for it, and runs from there.
#include "tests/run_command.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

TEST(Install, PutsEverythingWhereGnuPutsIt) {
  const std::string prefix = fresh_folder("install");
  const Finished install =
      shell_command(REP_CMAKE " --install '" + fs::path(REP_EXECUTABLE).parent_path().string() +
                    "' --prefix " + prefix);
  ASSERT_EQ(install.exit_code, 0) << install.output;
  for (const char* file :
       {"bin/rep", "share/man/man1/rep.1", "share/rep/configs/cifar100/rep-l2p.yaml",
        "share/rep/configs/rep.schema.json", "share/rep/results/published.yaml",
        "share/bash-completion/completions/rep", "share/zsh/vendor-completions/_rep",
        "share/fish/vendor_completions.d/rep.fish", "share/doc/rep/README.md",
        "share/doc/rep/copyright", "share/doc/rep/docs/configuration.md"}) {
    EXPECT_GT(fs::file_size(prefix + "/" + file), 0U) << file;
  }
  EXPECT_EQ(read_text(prefix + "/share/bash-completion/completions/rep"),
            rep_command("completion bash").output);
  EXPECT_NE(read_text(prefix + "/share/zsh/vendor-completions/_rep").rfind("#compdef rep\n", 0),
            std::string::npos);

  // As docs/install.md says: from a copy of the configurations.
  const Finished run = shell_command(
      "mkdir " + prefix + "/scratch && cd " + prefix +
      "/scratch && cp -r ../share/rep/configs . && PATH=" + prefix +
      "/bin:$PATH && rep --version && rep run configs/quickstart.yaml -q --output out "
      "--set backbone.weights=random --set train.iterations=1 --limit-train 2 --limit-test 1");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_EQ(run.output.rfind("rep ", 0), 0U) << run.output;
  EXPECT_EQ(read_json(prefix + "/scratch/out/result.json")["complete"], true);
}

}  // namespace
}  // namespace rep
