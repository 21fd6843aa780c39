// Runs of streams whose tasks are not disjoint cuts in several epochs: domains, blurred boundaries,
// one pass with the any-time accuracy, and long ones.
#include <numeric>
#include <set>

#include "core/registry.h"
#include "methods/method.h"
#include "run/evaluation.h"
#include "run/session.h"
#include "run/setup.h"
#include "tensor/torch.h"
#include "tests/image_sets.h"
#include "tests/json_schema.h"
#include "tests/long_runs.h"

namespace rep {
namespace {

/// Three domains of two classes with 6 training and 2 test images of each.
std::string draw_domains(const std::string& root) {
  uint8_t seed = 0;
  for (const char* domain : {"a", "b", "c"}) {
    for (const char* name : {"ant", "bee"}) {
      const std::string below = std::string("/") + domain + "/" + name + "/";
      for (int i = 0; i < 8; ++i) {
        put(root + (i < 6 ? "/train" : "/test") + below + std::to_string(i) + ".png",
            picture(32, 32, ++seed));
      }
    }
  }
  return root;
}

std::string domain_experiment(const std::string& method, const std::string& root) {
  std::string text = edited(small_experiment(method),
                            "{name: synthetic, classes: 6, train_per_class: 16, test_per_class: 4}",
                            "{name: domain_folder, root: '" + root + "'}");
  text = edited(text, "{tasks: 3}", "{kind: domain_incremental}");
  return edited(text, "epochs: 3", "epochs: 1");
}

Finished run_with_backbone(const std::string& config, const std::string& out) {
  const std::string command = "run " + config + " -q --output " + out;
  Finished run = rep_command(command);
  if (run.output.find("backbone.trainable") != std::string::npos) {  // it trains the backbone
    run = rep_command(command + " --set backbone.trainable=all");
  }
  return run;
}

/// Methods of which a class may come again. A new one that says so wants to be here, and in
/// docs/streams.md.
const std::set<std::string> kLearnsRepeatedClasses{
    "aper",      "apt",       "coda_prompt", "cps_prompt", "der",   "derpp", "dualprompt",   "er",
    "ewc",       "finetune",  "gdumb",       "inflora",    "joint", "l2p",   "linear_probe", "ncm",
    "no_prompt", "os_prompt", "ranpac",      "sd_lora",    "si",    "slda"};

TEST(DomainRun, OfEveryMethodWorksOrIsRefusedInASentence) {
  const nlohmann::json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  const std::string folder = fresh_folder("domain_methods");
  const std::string root = draw_domains(folder + "/images");
  const std::string page = read_text(REP_SOURCE_DIR "/docs/streams.md");
  for (const auto& [name, kind] : Registry<MethodKind>::get().entries()) {
    SCOPED_TRACE(name);
    const std::string config = write_text(folder + "/c.yaml", domain_experiment(name, root));
    const Finished run = run_with_backbone(config, folder + "/" + name);
    if (kLearnsRepeatedClasses.count(name) == 0) {
      EXPECT_EQ(run.exit_code, 1);
      EXPECT_EQ(
          run.output,
          "rep: stream.kind: domain_incremental brings classes of earlier tasks again, which " +
              name +
              " does not learn; take another method (docs/streams.md has a list), or "
              "disjoint tasks\n");
      continue;
    }
    ASSERT_EQ(run.exit_code, 0) << run.output;
    EXPECT_NE(page.find("`" + name + "`"), std::string::npos) << "docs/streams.md does not list it";
    const nlohmann::json result = read_json(folder + "/" + name + "/result.json");
    EXPECT_EQ(schema_violation(result, schema), "");
    EXPECT_FALSE(result["accuracy"].contains("task_incremental")) << "a mask by task says nothing";
    EXPECT_FALSE(result["metrics"].contains("task_incremental"));
    ASSERT_EQ(result["tasks"].size(), 3U);
    for (size_t t = 0; t < 3; ++t) {
      EXPECT_EQ(result["tasks"][t]["domain"], std::string(1, static_cast<char>('a' + t)));
      EXPECT_EQ(result["tasks"][t]["classes"], (std::vector<int64_t>{0, 1}));
      EXPECT_EQ(result["tasks"][t]["test_images"], 4);
    }
  }
}

TEST(DomainRun, TestsEachDomainAmongAllClassesAndAveragesOverDomains) {
  const std::string folder = fresh_folder("domain_matrix");
  const std::string config =
      write_text(folder + "/c.yaml", domain_experiment("ncm", draw_domains(folder + "/images")));
  ASSERT_EQ(run_with_backbone(config, folder + "/out").exit_code, 0);
  const nlohmann::json result = read_json(folder + "/out/result.json");
  const auto& a = result["accuracy"]["class_incremental"];
  const auto at = [&](size_t t, size_t i) { return a[t][i].get<double>(); };
  EXPECT_TRUE(a[0][1].is_null());
  EXPECT_DOUBLE_EQ(result["metrics"]["average_accuracy"], (at(2, 0) + at(2, 1) + at(2, 2)) / 3);
  const double lost =
      std::max({at(0, 0), at(1, 0), at(2, 0)}) - at(2, 0) + std::max(at(1, 1), at(2, 1)) - at(2, 1);
  EXPECT_DOUBLE_EQ(result["metrics"]["forgetting"], lost / 2);
}

TEST(RepeatedClasses, HaveTheMeanOfAllTheirImages) {
  // ncm after two domains is ncm after one of all their images.
  const std::string folder = fresh_folder("domain_means");
  const std::string root = draw_domains(folder + "/images");
  const std::string whole = folder + "/whole";
  for (const char* split : {"train", "test"}) {
    for (const char* name : {"ant", "bee"}) {
      for (const char* domain : {"a", "b", "c"}) {
        const std::string to = whole + "/" + split + "/" + name + "/" + domain;
        std::filesystem::create_directories(std::filesystem::path(to).parent_path());
        std::filesystem::copy(root + "/" + split + "/" + domain + "/" + name, to);
      }
    }
  }
  const std::string domains = write_text(folder + "/d.yaml", domain_experiment("ncm", root));
  const std::string once =
      write_text(folder + "/o.yaml",
                 edited(edited(domain_experiment("ncm", whole), "domain_folder", "image_folder"),
                        "{kind: domain_incremental}", "{tasks: 1}"));
  for (const auto& [config, out] : {std::pair{domains, "/d"}, {once, "/o"}}) {
    const Finished run = run_with_backbone(config, folder + out);
    ASSERT_EQ(run.exit_code, 0) << run.output;
  }
  const auto a = checkpointed_floats(folder + "/d", "learner.method"),
             b = checkpointed_floats(folder + "/o", "learner.method");
  size_t means = 0;
  for (const auto& [name, values] : a) {
    if (name.find("mean") == std::string::npos) continue;
    ++means;
    ASSERT_EQ(values.size(), b.at(name).size()) << name;
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], b.at(name)[i], 1e-5);
  }
  EXPECT_EQ(means, 1U);
}

TEST(RunThatGoesOn, IsNotOneOfSharedClassesOrOfValidationImages) {
  const std::string folder = fresh_folder("streams_learn");
  const std::string root = draw_domains(folder + "/images");
  const std::string domains =
      write_text(folder + "/d.yaml", domain_experiment("linear_probe", root));
  const std::string validated = write_text(
      folder + "/v.yaml",
      edited(edited(small_experiment("linear_probe"), "{tasks: 3}", "{tasks: 3, validation: 0.25}"),
             "epochs: 3", "epochs: 1"));
  for (const auto& [config, sentence] :
       {std::pair{domains, "its tasks share classes (stream.kind: domain_incremental)"},
        {validated, "did not learn its whole stream (stream.validation)"}}) {
    const std::string out = config + ".out";
    ASSERT_EQ(run_with_backbone(config, out).exit_code, 0);
    const Finished more =
        rep_command("learn " + out + " " + root + "/train/a -q --output " + config + ".more");
    EXPECT_EQ(more.exit_code, 1) << more.output;
    EXPECT_NE(more.output.find(sentence), std::string::npos) << more.output;
  }
}

// ---- one pass ----

std::string online_experiment(const std::string& method, const std::string& stream,
                              const std::string& eval) {
  return edited(edited(small_experiment(method, "eval: {" + eval + "}\n"), "{tasks: 3}", stream),
                "epochs: 3, ", "");
}

TEST(OnlineRun, ShowsEachImageOnceAndTestsAtIntervals) {
  const std::string folder = fresh_folder("online");
  const std::string config =
      write_text(folder + "/c.yaml",
                 online_experiment("linear_probe", "{tasks: 3, kind: online}", "every: 12"));
  const Finished run = rep_command("run " + config + " -q --output " + folder + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json result = read_json(folder + "/out/result.json");
  const nlohmann::json schema = read_json(REP_SOURCE_DIR "/results/schema.json");
  EXPECT_EQ(schema_violation(result, schema), "");
  // 3 tasks of 32 images in batches of 8: 4 steps each.
  for (const auto& task : result["tasks"]) EXPECT_EQ(task["iterations"], 4);
  // A test at the first step at which 12, 24, ..., 96 images were learned.
  const nlohmann::json& anytime = result["accuracy"]["anytime"];
  EXPECT_EQ(anytime["images"], (std::vector<int64_t>{16, 24, 40, 48, 64, 72, 88, 96}));
  EXPECT_EQ(anytime["classes"].back(), 6);
  EXPECT_LE(anytime["classes"][0], 2);
  double sum = 0;
  for (const double accuracy : anytime["accuracy"]) sum += accuracy;
  EXPECT_DOUBLE_EQ(result["metrics"]["anytime_auc"], sum / 8);
  // The last test saw what the last row of the matrix does: all of the stream.
  EXPECT_DOUBLE_EQ(anytime["accuracy"].back(), result["metrics"]["average_accuracy_micro"]);
}

TEST(OnlineRun, TestsAreAmongTheClassesShownAlone) {
  const std::string folder = fresh_folder("online_shown");
  Config config = read_experiment(write_text(folder + "/c.yaml", small_experiment("linear_probe")));
  Session session = open_session(config);
  const std::vector<bool> shown{true, false, true, false, false, true};
  int64_t hits = 0, images = 0;
  Loader::Options options;
  options.batch_size = 64;
  const c10::InferenceMode inference;
  for (const Task& task : session.stream.tasks) {
    Loader loader(*session.test, task.test, session.learner.transform(config, false), options);
    Batch batch;
    ASSERT_TRUE(loader.next(batch));
    const torch::Tensor logits = session.learner.method->predict(batch);
    for (int64_t i = 0; i < batch.size(); ++i) {
      const int64_t label = batch.labels[i].item<int64_t>();
      if (!shown[static_cast<size_t>(label)]) continue;
      int64_t best = 0;
      for (const int64_t c : {2, 5}) {
        if (logits[i][c].item<float>() > logits[i][best].item<float>()) best = c;
      }
      ++images;
      hits += best == label ? 1 : 0;
    }
  }
  const Correct correct = evaluate_shown(session, shown);
  EXPECT_EQ(correct.images, images);
  EXPECT_EQ(correct.images, 12);
  EXPECT_EQ(correct.class_incremental, hits);
}

TEST(OnlineRun, GoesOnAfterAKillToTheSameCurve) {
  const std::string folder = fresh_folder("online_killed");
  const std::string config = write_text(
      folder + "/c.yaml", edited(online_experiment("l2p", "{tasks: 3, kind: blurry}", "every: 8"),
                                 "train: {", "train: {epochs: 1, "));
  ASSERT_EQ(rep_command("run " + config + " -q --output " + folder + "/whole").exit_code, 0);
  for (const std::string file : {"checkpoint/state.safetensors", "result.json"}) {
    const std::string out = folder + "/killed_" + file.substr(0, 5);
    run_and_signal(config, out, SIGKILL, [&] { return std::filesystem::exists(out + "/" + file); });
    const Finished resumed = rep_command("run " + config + " -q --resume --output " + out);
    ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
    EXPECT_EQ(comparable(read_json(out + "/result.json")).dump(1),
              comparable(read_json(folder + "/whole/result.json")).dump(1));
  }
}

TEST(OnlineRun, RefusesWhatIsNotOnePass) {
  const std::string folder = fresh_folder("online_refused");
  const std::string config =
      write_text(folder + "/c.yaml",
                 online_experiment("linear_probe", "{tasks: 3, kind: online}", "every: 12"));
  const std::pair<const char*, const char*> bad[] = {
      {"train.epochs=2", "train.epochs: stream.kind: online is one pass over the stream, not 2"},
      {"train.iterations=3", "train.iterations: stream.kind: online shows every image once"},
      {"train.macs=1e9", "train.macs: "},
      {"train.seconds=9", "train.seconds: "},
      {"train.drop_last=true", "train.drop_last: "},
      {"train.decoupled.phase_ratio=0.5", "train.decoupled: "},
      {"eval.every=7", "eval.every: 7 images are less than a batch of 8"},
      {"eval.every=97", "eval.every: 97 is more than the stream's training images"},
      {"method=ncm", "eval.every: ncm, with these options, answers for a task only when it has "},
      {"method=gdumb", "eval.every: gdumb"}};
  for (const auto& [set, message] : bad) {
    const Finished run = rep_command("check " + config + " --set '" + set + "'");
    EXPECT_EQ(run.exit_code, 1) << set;
    EXPECT_NE(run.output.find(message), std::string::npos) << run.output;
  }
  EXPECT_EQ(rep_command("check " + config + " --set method=ncm --set eval.every=0").exit_code, 0);
  // Of another kind of stream the any-time accuracy asks for one pass, too.
  const Finished epochs = rep_command(
      "check " + write_text(folder + "/e.yaml", small_experiment("l2p", "eval: {every: 16}\n")));
  EXPECT_NE(epochs.output.find("train.epochs: eval.every is one pass over the stream, not 3"),
            std::string::npos)
      << epochs.output;
}

TEST(OnlineRun, IsPlannedWithItsTests) {
  const std::string folder = fresh_folder("online_plan");
  const std::string config =
      write_text(folder + "/c.yaml",
                 online_experiment("linear_probe", "{tasks: 3, kind: online}", "every: 8"));
  const Finished run = rep_command("run " + config + " -q --output " + folder + "/o");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json plan =
      nlohmann::json::parse(rep_command("plan " + config + " --json").output);
  const double planned = plan["macs"]["eval"];
  const double measured = read_json(folder + "/o/result.json")["cost"]["total"]["macs"]["eval"];
  EXPECT_NEAR(planned / measured, 1, 0.2) << planned << " for " << measured;
}

// ---- many tasks, and which of them are tested ----

TEST(LongRun, CostsInItsLastTaskWhatItDidInItsFirstOnes) {
  for (const char* method : {"l2p", "er", "ncm"}) expect_flat_costs(method, 20);
}

TEST(LongRun, TestsAfterEveryNthTaskAndTheLast) {
  const std::string folder = fresh_folder("every_tasks");
  const std::string config =
      write_text(folder + "/c.yaml",
                 edited(edited(small_experiment("linear_probe", "eval: {every_tasks: 2}\n"),
                               "{tasks: 3}", "{tasks: 6}"),
                        "epochs: 3", "epochs: 1"));
  const Finished run = rep_command("run " + config + " -q --output " + folder + "/out");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json result = read_json(folder + "/out/result.json");
  const auto& a = result["accuracy"]["class_incremental"];
  for (size_t t = 0; t < 6; ++t) {
    for (size_t i = 0; i < 6; ++i) {
      const bool tested = (t == 1 || t == 3 || t == 5) && i <= t;
      EXPECT_EQ(a[t][i].is_number(), tested) << t << " " << i;
    }
  }
  EXPECT_TRUE(result["metrics"]["average_accuracy"].is_number());
  for (const char* unknown : {"forgetting", "backward_transfer", "average_incremental_accuracy"}) {
    EXPECT_TRUE(result["metrics"][unknown].is_null()) << unknown;
  }
}

}  // namespace
}  // namespace rep
