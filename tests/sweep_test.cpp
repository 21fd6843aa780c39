// A sweep runs each of its runs once, to the result that the run alone would have, whatever stops
// it in between.
#include "study/sweep.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <optional>
#include <regex>
#include <thread>

#include "core/error.h"
#include "core/identity.h"
#include "run/inputs.h"
#include "run/setup.h"
#include "study/child_process.h"
#include "study/sweep_folder.h"
#include "tests/run_command.h"

namespace rep {
namespace {

/// A sweep of a configuration of l2p that names no seed.
SweepOptions sweep_of_one(const std::string& name) {
  const std::string folder = fresh_folder(name);
  SweepOptions options;
  options.configs = {write_text(folder + "/c.yaml", small_experiment("l2p"))};
  options.output = folder + "/out";
  return options;
}

std::vector<SweepRun> plan(const SweepOptions& options) {
  return plan_sweep(options, {read_experiment, InputDigests()});
}

std::vector<std::string> directories(const std::vector<SweepRun>& runs) {
  std::vector<std::string> names;
  for (const SweepRun& run : runs)
    names.push_back(run.directory.substr(0, run.directory.size() - 11));
  return names;
}

TEST(SweepPlan, IsConfigurationsTimesGridTimesSeeds) {
  SweepOptions options = sweep_of_one("sweep_plan");
  options.grid = {"method={name: l2p, top_k: 3},er", "train.optimizer.lr=0.1, 1e-2"};
  options.seeds = {1, 2};
  const std::vector<SweepRun> runs = plan(options);
  EXPECT_EQ(directories(runs),
            (std::vector<std::string>{"small-method=name-l2p-top_k-3-train.optimizer.lr=0.1-s1",
                                      "small-method=name-l2p-top_k-3-train.optimizer.lr=0.1-s2",
                                      "small-method=name-l2p-top_k-3-train.optimizer.lr=1e-2-s1",
                                      "small-method=name-l2p-top_k-3-train.optimizer.lr=1e-2-s2",
                                      "small-method=er-train.optimizer.lr=0.1-s1",
                                      "small-method=er-train.optimizer.lr=0.1-s2",
                                      "small-method=er-train.optimizer.lr=1e-2-s1",
                                      "small-method=er-train.optimizer.lr=1e-2-s2"}));
  EXPECT_EQ(runs[3].overrides,
            (std::vector<std::string>{"method={name: l2p, top_k: 3}", "train.optimizer.lr=1e-2"}));
  EXPECT_EQ(runs[3].seed, 2);
  EXPECT_TRUE(std::regex_match(runs[3].key, std::regex("[0-9a-f]{10}")));
  EXPECT_EQ(runs[3].directory, directories(runs)[3] + "-" + runs[3].key);
}

TEST(SweepPlan, KeepsTheConfigurationsSeedWithoutSeeds) {
  SweepOptions options = sweep_of_one("sweep_seedless");
  options.set = {"seed=7"};
  EXPECT_EQ(plan(options).at(0).seed, 7);
}

TEST(SweepPlan, KnowsARunByWhatItsNumbersDependOn) {
  SweepOptions options = sweep_of_one("sweep_keys");
  options.seeds = {1};
  const std::string key = plan(options).at(0).key;
  for (const char* same :
       {"name=other", "threads=4", "device=cpu", "train.checkpoint_seconds=9", "train.epochs=3",
        "method={\"name\": l2p}", "seed=5", "method.top_k=5", "memory_limit=1GiB",
        "train.workers=3", "eval.offline_result=x.json", "dataset.train_per_class=16"}) {
    options.set = {same};
    EXPECT_EQ(plan(options).at(0).key, key) << same;
  }
  for (const char* other : {"train.epochs=4", "method.top_k=4", "dataset.classes=12", "method=er",
                            "precision=bf16", "efficiency.token_merging.n=2"}) {
    options.set = {other};
    EXPECT_NE(plan(options).at(0).key, key) << other;
  }
}

TEST(SweepPlan, KnowsDataAndWeightsByTheirContent) {
  SweepOptions options = sweep_of_one("sweep_content");
  const std::string folder = std::filesystem::path(options.output).parent_path();
  for (const char* name : {"/a", "/b", "/c"}) {
    std::filesystem::create_directories(folder + name);
    write_text(folder + name + "/train.bin", std::string(3074, name[1] == 'c' ? '\4' : '\3'));
    write_text(folder + name + "/test.bin", std::string(3074, name[1] == 'c' ? '\4' : '\3'));
    // Two safetensors without tensors.
    write_text(folder + name + ".pth", name[1] == 'c' ? std::string("\3\0\0\0\0\0\0\0{ }", 11)
                                                      : std::string("\2\0\0\0\0\0\0\0{}", 10));
  }
  const auto key = [&](const std::string& data, const std::string& weights) {
    options.set = {"dataset={name: cifar100, root: '" + folder + "/" + data + "'}",
                   "backbone.weights=" + folder + "/" + weights + ".pth"};
    return plan(options).at(0).key;
  };
  EXPECT_EQ(key("a", "a"), key("b", "b")) << "moved";
  EXPECT_NE(key("a", "a"), key("c", "a"));
  EXPECT_NE(key("a", "a"), key("a", "c"));
}

TEST(SweepPlan, KnowsListsAndClassOrdersByTheirContent) {
  SweepOptions options = sweep_of_one("sweep_lists");
  const std::string folder = std::filesystem::path(options.output).parent_path();
  for (const char* c : {"ant", "bee"}) {
    for (const char* split : {"train", "test"}) {
      std::filesystem::create_directories(folder + "/data/" + split + "/" + c);
      write_text(folder + "/data/" + split + "/" + c + "/0.png", std::string(c) + split);
    }
  }
  for (const char* name : {"/a", "/b", "/c"}) {
    std::filesystem::create_directories(folder + name);
    write_text(folder + name + "/order", name[1] == 'c' ? "1 0" : "0 1");
    write_text(folder + name + "/list", name[1] == 'c' ? "train/bee/0.png 1\ntrain/ant/0.png 0\n"
                                                       : "train/ant/0.png 0\ntrain/bee/0.png 1\n");
  }
  const auto key = [&](const std::string& order, const std::string& list) {
    options.set = {"dataset={name: image_folder, root: '" + folder + "/data', train_list: '" +
                       folder + "/" + list + "/list'}",
                   "stream.class_order=" + folder + "/" + order + "/order"};
    return plan(options).at(0).key;
  };
  EXPECT_EQ(key("a", "a"), key("b", "b")) << "moved";
  EXPECT_NE(key("a", "a"), key("c", "a"));
  EXPECT_NE(key("a", "a"), key("a", "c"));
}

/// Puts a finished run with this identity into a folder of the sweep.
void put_result(const SweepOptions& options, const std::string& directory, const Json& identity) {
  std::filesystem::create_directories(options.output + "/" + directory);
  write_text(options.output + "/" + directory + "/result.json",
             to_text(Json{{"complete", true}, {"identity", identity}}));
}

Json whole_identity(const SweepOptions& options) {
  const Config config = read_experiment(options.configs.at(0), options.set);
  return identity(config, InputDigests()(config));
}

// A build from before options came: its keys were others, and its identities lack the options.
TEST(SweepPlan, FindsAFolderOfAnotherBuildByItsResult) {
  SweepOptions options = sweep_of_one("sweep_other_build");
  Json was = whole_identity(options);
  was["train"].erase("schedule");
  was["method"].erase("selection");
  put_result(options, "small-s42-0123456789", was);
  EXPECT_EQ(plan(options).at(0).directory, "small-s42-0123456789");
  options.set = {"train.epochs=4"};
  EXPECT_NE(plan(options).at(0).directory, "small-s42-0123456789");
  options.set = {"method.selection=batchwise"};
  EXPECT_NE(plan(options).at(0).directory, "small-s42-0123456789") << "it had the default";
}

TEST(SweepPlan, RefusesAFolderWhoseKeyMeantAnotherDefault) {
  const SweepOptions options = sweep_of_one("sweep_other_default");
  Json was = whole_identity(options);
  const std::string directory = "small-s42-" + plan(options).at(0).key;
  put_result(options, directory, was);
  EXPECT_EQ(plan(options).at(0).directory, directory);
  was["train"]["optimizer"]["lr"] = 0.5;  // that build's default
  put_result(options, directory, was);
  try {
    plan(options);
    ADD_FAILURE() << "took another run's result";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("train.optimizer.lr was 0.5 and is 0.001875"),
              std::string::npos)
        << error.what();
  }
}

// So that the folder of a result is found by its identity.
TEST(SweepPlan, ListsTheInputsOfTheRunsOwnIdentity) {
  const SweepOptions options = sweep_of_one("sweep_inputs");
  const Finished run = rep_command("run " + options.configs[0] + " -q --set train.iterations=1 " +
                                   "--output " + options.output);
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const Json inputs = Json::parse(read_text(options.output + "/result.json"))["identity"]["inputs"];
  EXPECT_EQ(to_text(whole_identity(options)["inputs"]), to_text(inputs));
}

TEST(SweepPlan, TakesARunThatIsGivenTwiceOnce) {
  SweepOptions options = sweep_of_one("sweep_merged");
  options.configs.push_back(options.configs.front());
  options.grid = {"train.epochs=2,3,2"};
  EXPECT_EQ(plan(options).size(), 2U);
}

TEST(SweepPlan, FindsAFolderByItsKey) {
  SweepOptions options = sweep_of_one("sweep_found");
  const std::string key = plan(options).at(0).key;
  std::filesystem::create_directories(options.output + "/called-otherwise-" + key);
  options.grid = {"train.epochs=3,4"};  // 3 is what the configuration has
  const std::vector<SweepRun> runs = plan(options);
  EXPECT_EQ(runs.at(0).directory, "called-otherwise-" + key);
  EXPECT_EQ(runs.at(1).directory, "small-train.epochs=4-s42-" + runs.at(1).key);
}

TEST(SweepPlan, MakesAnyValueAFileName) {
  SweepOptions options = sweep_of_one("sweep_names");
  options.set = {"name=../\"up\" {and} away"};
  options.grid = {"backbone.weights=a/b c.pth,\"x,y\"," + std::string(400, 'z')};
  const std::vector<SweepRun> runs = plan(options);
  EXPECT_EQ(directories(runs)[0], "..-up-and-away-backbone.weights=a-b-c.pth-s42");
  EXPECT_EQ(directories(runs)[1], "..-up-and-away-backbone.weights=x-y-s42");
  EXPECT_LT(runs.at(2).directory.size(), 200U);
}

TEST(SweepPlan, RefusesABadGridWithASentence) {
  const std::pair<const char*, const char*> bad[] = {
      {"train.epoch=1,2", "--grid train.epoch: unknown key 'epoch' (did you mean 'epochs'?)"},
      {"train.epochs=1,many", "--grid train.epochs: expected a whole number"},
      {"train.epochs=", "--grid train.epochs: has no values"},
      {"train.epochs=1,,2", "--grid train.epochs: a value is empty"},
      {"train.epochs", "--grid train.epochs: expected KEY=V1,V2"},
      {"stream.class_order=[0, 1", "--grid stream.class_order: a bracket or a quote is not closed"},
      {"seed=1,2", "--seeds"},
      {"device=cpu,cuda", "--grid device: no number depends on it"},
      {"threads=1,2", "--grid threads: no number depends on it"},
      {"train.checkpoint_seconds=1,2", "no number depends on it"},
      {"memory_limit=1GiB,2GiB", "--grid memory_limit: no number depends on it"}};
  for (const auto& [grid, message] : bad) {
    SweepOptions options = sweep_of_one("sweep_bad");
    options.grid = {grid};
    try {
      plan(options);
      ADD_FAILURE() << grid << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  }
  SweepOptions twice = sweep_of_one("sweep_bad");
  twice.grid = {"train.epochs=1", "train.epochs=2"};
  EXPECT_THROW(plan(twice), Error);
}

/// Starts `rep sweep` with these arguments, sends it `signal` as soon as `ready`, and waits for it;
/// the exit status as a shell would say it.
int sweep_and_signal(const std::vector<std::string>& arguments, int signal,
                     const std::function<bool()>& ready) {
  std::vector<const char*> words{REP_EXECUTABLE, "sweep"};
  for (const std::string& word : arguments) words.push_back(word.c_str());
  words.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
    execv(REP_EXECUTABLE, const_cast<char* const*>(words.data()));
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (ready()) {
      kill(child, signal);
      waitpid(child, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// How many of a sweep's folders hold this file.
int64_t folders_with(const std::string& output, const std::string& file) {
  int64_t count = 0;
  if (!std::filesystem::exists(output)) return 0;
  for (const auto& entry : std::filesystem::directory_iterator(output)) {
    count += std::filesystem::exists(entry.path() / file);
  }
  return count;
}

int64_t occurrences(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  return std::distance(std::sregex_iterator(text.begin(), text.end(), regex),
                       std::sregex_iterator());
}

TEST(Sweep, OneFailingRunLeavesTheOthersAndARepeatRunsOnlyWhatIsNotFinished) {
  const std::string folder = fresh_folder("sweep_failing");
  const std::string config =
      write_text(folder + "/c.yaml", edited(small_experiment("l2p"), "epochs: 3", "epochs: 1"));
  const std::string out = folder + "/out";
  const std::string command =
      "sweep " + config + " --grid method.top_k=2,11 --limit-train 8 --jobs 2 --output " + out;

  const Finished dry = rep_command(command + " --dry-run");
  EXPECT_EQ(dry.exit_code, 0) << dry.output;
  EXPECT_EQ(occurrences(dry.output,
                        "new +rep run [^\n]*c.yaml --set dataset.limit_train=8 --set "
                        "method.top_k=[0-9]+ --seed 42 --output "),
            2)
      << dry.output;
  EXPECT_FALSE(std::filesystem::exists(out));

  const Finished first = rep_command(command);
  EXPECT_EQ(first.exit_code, 1) << first.output;
  EXPECT_EQ(occurrences(first.output, "1 done, 0 skipped, 1 failed"), 1) << first.output;
  EXPECT_EQ(occurrences(first.output,
                        "failed +small-method.top_k=11-s42-[0-9a-f]+: method: top_k "
                        "11 is more than pool_size 10"),
            2)  // when it happened, and in the table
      << first.output;

  const Finished again = rep_command(command);
  EXPECT_EQ(again.exit_code, 1) << again.output;
  EXPECT_EQ(occurrences(again.output, "0 done, 1 skipped, 1 failed"), 1) << again.output;
  EXPECT_EQ(occurrences(again.output, "started"), 1) << again.output;
  const Finished state = rep_command(command + " --dry-run");
  EXPECT_EQ(occurrences(state.output, "finished +rep run [^\n]*top_k=2 "), 1) << state.output;
  EXPECT_EQ(occurrences(state.output, "failed +rep run [^\n]*top_k=11 "), 1) << state.output;
  const Finished status = rep_command("sweep --status " + out);
  EXPECT_EQ(occurrences(status.output, "finished +small-method.top_k=2-s42-[0-9a-f]+\n"), 1)
      << status.output;
  EXPECT_EQ(occurrences(status.output,
                        "failed +small-method.top_k=11-s42-[0-9a-f]+: method: top_k 11 is more "
                        "than pool_size 10; choose at most that many\n"),
            1)
      << status.output;
  EXPECT_EQ(occurrences(status.output, "2 runs: 1 failed, 1 finished\n$"), 1) << status.output;

  // Another sweep into the folder: what is there is used, and stays listed.
  const Finished good =
      rep_command("sweep " + config + " --set method.top_k=2 --limit-train 8 --output " + out);
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_EQ(occurrences(good.output, "0 done, 1 skipped, 0 failed"), 1) << good.output;
  const nlohmann::json manifest = read_json(out + "/sweep.json");
  ASSERT_EQ(manifest.at("runs").size(), 2U);
  for (const auto& run : manifest["runs"]) {
    const std::string directory = run.at("directory"), key = run.at("key");
    EXPECT_TRUE(std::filesystem::exists(out + "/" + directory + "/sweep.log"));
    EXPECT_EQ(directory.substr(directory.size() - key.size()), key);
    EXPECT_EQ(run.at("config"), config);
    EXPECT_EQ(run.at("overrides").size(), 2U);
    EXPECT_EQ(run.at("seed"), 42);
  }
}

TEST(Sweep, RefusesAnUnknownOptionOfTheMethodBeforeItBegins) {
  const SweepOptions options = sweep_of_one("sweep_unknown");
  const Finished refused =
      rep_command("sweep " + options.configs[0] +
                  " --grid method.top_k=2 --set method.top_q=1 --output " + options.output);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_EQ(occurrences(refused.output,
                        "^rep: [^\n]*c.yaml: --set method.top_q: unknown key 'top_q'[^\n]*"
                        "did you mean 'top_k'[^\n]*\n$"),
            1)
      << refused.output;
  EXPECT_FALSE(std::filesystem::exists(options.output));
}

TEST(Sweep, SaysWhatSlurmLacksInASentence) {
  const SweepOptions options = sweep_of_one("sweep_no_slurm");
  const std::string arguments = " sweep " + options.configs[0] + " --output " + options.output;
  const Finished missing =
      shell_command("PATH=/nowhere " REP_EXECUTABLE + arguments + " --engine slurm");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_EQ(occurrences(missing.output, "^rep: --engine slurm: sbatch is not installed[^\n]*\n$"),
            1)
      << missing.output;
  const Finished local = shell_command(REP_EXECUTABLE + arguments + " --gres gpu:1");
  EXPECT_EQ(local.exit_code, 1);
  EXPECT_EQ(local.output, "rep: --gres: is for --engine slurm; add that, or remove it\n");
  const Finished bad = shell_command(REP_EXECUTABLE + arguments + " --engine slurm --time '1 --x'");
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_EQ(occurrences(bad.output, "^rep: --time: '[^\n]*has signs that no such value has"), 1)
      << bad.output;
}

TEST(Sweep, PrintsTheBatchScriptInADryRun) {
  const SweepOptions options = sweep_of_one("sweep_dry_slurm");
  const Finished dry = shell_command(
      "PATH=/usr/bin:/bin " REP_EXECUTABLE " sweep " + options.configs[0] +
      " --seeds 1,2 --engine slurm --time 4:00:00 --dry-run --output " + options.output);
  EXPECT_EQ(dry.exit_code, 0) << dry.output;
  EXPECT_EQ(dry.output.rfind("#!/bin/bash\n#SBATCH --job-name=rep-sweep\n#SBATCH --array=0-1\n", 0),
            0U)
      << dry.output;
  EXPECT_EQ(occurrences(dry.output, "#SBATCH --time=4:00:00\n"), 1);
  EXPECT_EQ(occurrences(dry.output, "arguments=\\(run [^\n]*c.yaml --seed [12] "), 2) << dry.output;
  EXPECT_FALSE(std::filesystem::exists(options.output));
}

TEST(Sweep, TakesSeedsWithBlanksOrCommasBetween) {
  const SweepOptions options = sweep_of_one("sweep_seeds");
  const std::string& config = options.configs[0];
  for (const std::string& arguments :
       {config + " --seeds 1 2 3", config + " --seeds 1,2,3", "--seeds 1 2 3 " + config,
        "--seeds 1,2 " + config + " --seeds 3", config + " --seeds=1 --seeds=2,3"}) {
    const Finished dry =
        rep_command("sweep " + arguments + " --dry-run --output " + options.output);
    EXPECT_EQ(dry.exit_code, 0) << arguments << dry.output;
    for (const char* seed : {"1", "2", "3"}) {
      EXPECT_EQ(occurrences(dry.output, std::string("--seed ") + seed + " "), 1) << arguments;
    }
    EXPECT_EQ(occurrences(dry.output, "\n"), 3) << arguments;
  }
  EXPECT_EQ(rep_command("sweep " + config + " --seeds -1 --dry-run").exit_code, 1);
  EXPECT_EQ(rep_command("sweep --seeds 1 2").exit_code, 2) << "no experiment";
}

/// Programs of a pretended SLURM in `folder`: what sbatch is given is there afterwards, and squeue
/// says what is in `folder`/queue.
void pretend_slurm(const std::string& folder) {
  std::filesystem::create_directories(folder);
  const auto program = [&](const std::string& name, const std::string& text) {
    write_text(folder + "/" + name, "#!/bin/bash\ncd \"${0%/*}\"\n" + text);
    std::filesystem::permissions(folder + "/" + name, std::filesystem::perms::all);
  };
  program("sbatch", "printf '%s\\n' \"$@\" >arguments\ncp \"${@: -1}\" script\necho '7;here'\n");
  program("squeue", "cat queue\n");
  program("sacct", "echo 'Slurm accounting storage is disabled' >&2\nexit 1\n");
  program("scontrol", "printf '%s\\n' \"$*\" >>requeued\n");
}

TEST(Sweep, HandsEveryPathAndValueToSlurmAsItIs) {
  const std::string folder = fresh_folder("sweep's \"quoted\" $(touch pwned) `touch pwned` \\ %j");
  const std::string config =
      write_text(folder + "/-c; d.yaml", edited(small_experiment("l2p"), "epochs: 3", "epochs: 1"));
  const std::string out = folder + "/o'ut\nnew", bin = folder + "/bin";
  pretend_slurm(bin);
  const std::string path = "cd " + shell_word(folder) + " && PATH=" + shell_word(bin) + ":$PATH ";
  const std::string rep = path + REP_EXECUTABLE " sweep ";
  const Finished submitted = shell_command(
      rep + shell_word(config) +
      " --set 'name=it'\\''s $(touch pwned)' --limit-train 8 "
      "--engine slurm --time 1-0 --gres gpu:a100:1 --jobs 3 --set threads=2 --output " +
      shell_word(out));
  ASSERT_EQ(submitted.exit_code, 0) << submitted.output;
  std::ifstream file(bin + "/script");
  const std::string script{std::istreambuf_iterator<char>(file), {}};
  for (const char* line :
       {"#SBATCH --array=0-0%3\n", "#SBATCH --cpus-per-task=2\n", "#SBATCH --time=1-0\n",
        "#SBATCH --gres=gpu:a100:1\n", "#SBATCH --requeue\n", "#SBATCH --signal=B:USR1@60\n"}) {
    EXPECT_NE(script.find(line), std::string::npos) << script;
  }

  const std::string status = rep + "--status " + shell_word(out);
  write_text(bin + "/queue", "7|0|PENDING|Priority\n8|0|RUNNING|None\n");
  EXPECT_EQ(occurrences(shell_command(status).output, "^queued +it-s[^\n]*: Priority\n"), 1)
      << shell_command(status).output;
  write_text(bin + "/queue", "7|0|OUT_OF_MEMORY|None\n");
  EXPECT_EQ(occurrences(shell_command(status).output, "^failed +[^\n]*: SLURM says OUT_OF_MEMORY"),
            1);
  write_text(bin + "/queue", "");
  EXPECT_EQ(occurrences(shell_command(status).output, "^unfinished +it-s[^\n:]*\n"), 1);

  const Finished job = shell_command("cd / && SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=0 bash " +
                                     shell_word(bin + "/script"));
  EXPECT_EQ(job.exit_code, 0) << job.output;
  EXPECT_EQ(occurrences(shell_command(status).output, "^finished +it-s"), 1)
      << shell_command(status).output;
  EXPECT_FALSE(std::filesystem::exists(folder + "/pwned"));
}

// The number of threads that a run began with stays, whatever is submitted beside it the next time.
TEST(Sweep, HandsAnUnfinishedRunToSlurmWithItsOwnThreads) {
  const std::string folder = fresh_folder("sweep_slurm_threads"), bin = folder + "/bin";
  const std::string out = folder + "/out";
  pretend_slurm(bin);
  std::string text = small_experiment("no_prompt");
  text.erase(text.find("threads: 1\n"), std::strlen("threads: 1\n"));
  const std::string config = write_text(folder + "/c.yaml", text);
  SweepOptions options;
  options.configs = {config};
  options.output = out;
  const std::string run = out + "/" + plan(options).at(0).directory;
  // As a sweep began it whose other runs had two threads.
  ASSERT_EQ(signal_at_line(config, run, 1, SIGKILL, {"--set", "threads=2"}), 128 + SIGKILL);
  const Finished submitted = shell_command("PATH=" + bin + ":$PATH " REP_EXECUTABLE " sweep " +
                                           config + " --engine slurm --output " + out);
  ASSERT_EQ(submitted.exit_code, 0) << submitted.output;
  const std::string job = "SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=0 bash " + bin + "/script";
  const Finished resumed = shell_command(job);
  EXPECT_EQ(resumed.exit_code, 0) << resumed.output << read_text(run + "/sweep.log");
  EXPECT_EQ(read_json(run + "/result.json")["device"]["threads"], 2);
  std::filesystem::remove_all(run);  // one that begins takes what it is given
  ASSERT_EQ(shell_command(job).exit_code, 0) << read_text(run + "/sweep.log");
  EXPECT_EQ(read_json(run + "/result.json")["device"]["threads"], 1);
}

TEST(Sweep, KilledAndStoppedEndsWithTheResultsOfTheRunsAlone) {
  const std::string folder = fresh_folder("sweep_killed");
  const std::string config =
      write_text(folder + "/c.yaml", edited(small_experiment("l2p"), "epochs: 3", "epochs: 2"));
  const std::string out = folder + "/out";
  const std::vector<std::string> arguments{config, "--seeds",  "1,2", "--jobs",
                                           "2",    "--output", out};
  EXPECT_EQ(sweep_and_signal(arguments, SIGKILL,
                             [&] { return folders_with(out, "checkpoint/state.safetensors") > 0; }),
            128 + SIGKILL);
  // At once: the killed sweep's processes may still be saving.
  EXPECT_EQ(
      sweep_and_signal(arguments, SIGTERM, [&] { return folders_with(out, "result.json") > 0; }),
      130);
  const std::vector<SweepRun> runs = [&] {
    SweepOptions options;
    options.configs = {config};
    options.seeds = {1, 2};
    options.output = out;
    return plan(options);
  }();
  for (const SweepRun& run : runs) {  // nobody is at work any more
    EXPECT_TRUE(FileLock::try_take(out + "/" + run.directory + "/lock").has_value());
  }
  EXPECT_EQ(sweep_and_signal(arguments, SIGTERM, [] { return false; }), 0);
  for (const SweepRun& run : runs) {
    const std::string alone = folder + "/alone" + std::to_string(run.seed);
    const Finished direct = rep_command("run " + config + " -q --seed " + std::to_string(run.seed) +
                                        " --output " + alone);
    ASSERT_EQ(direct.exit_code, 0) << direct.output;
    EXPECT_EQ(comparable(read_json(out + "/" + run.directory + "/result.json")).dump(1),
              comparable(read_json(alone + "/result.json")).dump(1));
  }
}

TEST(Sweep, KilledLeavesNoProcessBehind) {
  const std::string folder = fresh_folder("sweep_orphan");
  const std::string config =
      write_text(folder + "/c.yaml", edited(small_experiment("l2p"), "epochs: 3", "epochs: 4000"));
  const std::string out = folder + "/out";
  EXPECT_EQ(sweep_and_signal({config, "--output", out}, SIGKILL,
                             [&] { return folders_with(out, "checkpoint/state.safetensors") > 0; }),
            128 + SIGKILL);
  std::string run;
  for (const auto& entry : std::filesystem::directory_iterator(out)) {
    if (entry.is_directory()) run = entry.path();
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!FileLock::try_take(run + "/lock") && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(FileLock::try_take(run + "/lock").has_value()) << "the run goes on by itself";
  EXPECT_FALSE(std::filesystem::exists(run + "/result.json"));
}

TEST(Sweep, WaitsForAFolderThatAnotherProcessIsAtWorkIn) {
  const std::string folder = fresh_folder("sweep_held");
  SweepOptions options;
  options.configs = {
      write_text(folder + "/c.yaml", edited(small_experiment("l2p"), "epochs: 3", "epochs: 1"))};
  options.output = folder + "/out";
  const std::string run = options.output + "/" + plan(options).at(0).directory;
  std::filesystem::create_directories(run);
  std::optional<FileLock> lock = FileLock::try_take(run + "/lock");
  ASSERT_TRUE(lock.has_value());
  const std::string log = folder + "/log";
  const pid_t child = fork();
  if (child == 0) {
    dup2(open(log.c_str(), O_WRONLY | O_CREAT, 0644), STDERR_FILENO);
    execl(REP_EXECUTABLE, REP_EXECUTABLE, "sweep", options.configs[0].c_str(), "--output",
          options.output.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  const auto logged = [&] {
    std::ifstream file(log);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  int status = 0;
  while (occurrences(logged(), "waiting") == 0 && waitpid(child, &status, WNOHANG) == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_FALSE(std::filesystem::exists(run + "/sweep.log")) << "it began all the same";
  lock.reset();
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << logged();
  EXPECT_EQ(occurrences(logged(), "1 done, 0 skipped, 0 failed"), 1) << logged();
}

}  // namespace
}  // namespace rep
