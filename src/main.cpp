// The program: hands the command line to a subcommand, and turns what it throws into a sentence on
// stderr and an exit code (core/error.h).
#include <c10/util/Exception.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "core/error.h"
#include "core/suggest.h"
#include "revision.h"

namespace rep {
namespace {

int complain(ExitCode code, const std::string& sentence) {
  std::cerr << "rep: " << sentence << std::endl;
  return static_cast<int>(code);
}

int internal_error(const std::string& what) {
  return complain(ExitCode::kInternal,
                  "internal error, a fault of rep " REP_VERSION " (" REP_REVISION "): " + what);
}

/// LibTorch's CPU allocator throws a plain c10::Error, and CUDA's class differs between releases:
/// the wording is what they share.
bool is_out_of_memory(const std::string& what) {
  for (const char* phrase : {"out of memory", "can't allocate memory", "not enough memory",
                             "Failed to allocate", "Insufficient memory"}) {
    if (what.find(phrase) != std::string::npos) return true;
  }
  return false;
}

int out_of_memory(const std::string& what) {
  return complain(
      ExitCode::kUserError,
      "out of memory; a smaller train.batch_size, eval.batch_size or backbone needs less" +
          (what.empty() ? "" : " (" + what.substr(0, what.find('\n')) + ")"));
}

/// The command in the footer of its help, on one line.
std::string example_of(const CLI::App& command) {
  const std::string footer = command.get_footer(), mark = "Example: ";
  const size_t begin = footer.find(mark);
  if (begin == std::string::npos) return "rep " + command.get_name() + " --help";
  const std::string example = footer.substr(begin + mark.size());
  return example.substr(0, example.find('\n'));
}

/// "rep rnu" gets a suggestion, "rep run" what to type; everything else CLI11's own words.
int usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const bool done = error.get_exit_code() == 0;  // --help, --version
  if (error.get_name() == "RequiredError" && !app.get_subcommands().empty()) {
    const CLI::App& command = *app.get_subcommands().front();
    return complain(ExitCode::kUsage, command.get_name() + ": " + error.what() +
                                          "; type, for example: " + example_of(command));
  }
  if (!done && app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-') {
    std::vector<std::string> names;
    for (const CLI::App* command : app.get_subcommands(nullptr)) {
      names.push_back(command->get_name());
    }
    return complain(ExitCode::kUsage, "unknown command '" + std::string(argv[1]) + "'" +
                                          did_you_mean(argv[1], names) + "; known: " + join(names));
  }
  app.exit(error);
  return static_cast<int>(done ? ExitCode::kDone : ExitCode::kUsage);
}

int run(int argc, char** argv) {
  CLI::App app("Continual learning of images: REP, prompt methods and baselines, measured.", "rep");
  app.set_version_flag("--version", "rep " REP_VERSION " (" REP_REVISION ")");
  app.require_subcommand(1);
  app.footer("Example: rep run configs/quickstart.yaml");
  add_run_command(app);
  add_sweep_command(app);
  add_check_command(app);
  add_learn_command(app);
  add_list_command(app);
  add_inspect_command(app);
  add_export_command(app);
  add_bench_command(app);
  add_plan_command(app);
  add_predict_command(app);
  add_pretrain_command(app);
  add_report_command(app);
  add_schema_command(app);
  add_completion_command(app);
  try {
    app.parse(argc, argv);
    if (!std::cout.flush()) throw Error("cannot write to the standard output");
    return static_cast<int>(ExitCode::kDone);
  } catch (const CLI::ParseError& e) {
    return usage_error(app, e, argc, argv);
  } catch (const Interrupted& e) {
    return complain(ExitCode::kInterrupted, e.what());
  } catch (const Error& e) {
    return complain(ExitCode::kUserError, e.what());
  } catch (const std::bad_alloc&) {
    return out_of_memory("");
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    return is_out_of_memory(what) ? out_of_memory(what) : internal_error(what);
  } catch (const std::exception& e) {
    return is_out_of_memory(e.what()) ? out_of_memory(e.what()) : internal_error(e.what());
  }
}

/// GNU OpenMP's idle threads spin for a long while before they sleep. Beside any other busy process
/// they take the cores from the very threads that they wait for: a training step was seen to take
/// ten times as long. The library reads its settings when it is loaded, before main(): so a command
/// that computes starts itself again, once, with a short spin. A setting of the user's stays.
void shorten_openmp_spin(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  constexpr const char* kComputing[] = {"run", "learn", "predict", "pretrain", "bench", "plan"};
  if (std::find(std::begin(kComputing), std::end(kComputing), command) == std::end(kComputing)) {
    return;
  }
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  setenv("GOMP_SPINCOUNT", "10000", /*overwrite=*/1);
  execv("/proc/self/exe", argv);  // returns only when it failed: then it goes on slower
}

/// A training step frees and takes the same large blocks again and again. By itself glibc hands
/// each back to the kernel, which clears every page again when it is next touched: a tenth of a
/// step.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);  // no number of an int would do: ViT-L's steps free 3 GB
  mallopt(M_TOP_PAD, 16 << 20);
#endif
}

}  // namespace
}  // namespace rep

int main(int argc, char** argv) {
  rep::shorten_openmp_spin(argc, argv);
  rep::keep_freed_memory();
  return rep::run(argc, argv);
}
