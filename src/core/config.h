#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"

namespace rep {

// One experiment. Every struct has the defaults in place; key == field == JSON key == the paper's
// word.

/// How the data set is cut into tasks (data/stream.h).
struct StreamConfig {
  int64_t tasks = 10;
  WordOrList class_order =
      std::string("natural");             // natural | seed | 1993 | a list | a file's path
  std::vector<int64_t> classes_per_task;  // uneven splits; overrides tasks
  int64_t initial_classes = 0;            // classes of the first task; 0: as the others
  std::string order = "shuffled";         // training images: shuffled | stored | iid | class_iid |
                                          // instance | class_instance
  int64_t order_seed = 10;                // of the last four
  int64_t stop_after = 0;                 // tasks that are learnt, of all those above; 0: all

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("tasks", tasks, at_least(1));
    visit("class_order", class_order);
    visit("classes_per_task", classes_per_task);
    visit("initial_classes", initial_classes, at_least(0));
    visit("order", order,
          one_of({"shuffled", "stored", "iid", "class_iid", "instance", "class_instance"}));
    visit("order_seed", order_seed, between(0, 4294967295.0));
    visit("stop_after", stop_after, at_least(0));
  }
};

/// A vision transformer (nn/vit.h) or ResNet and where its weights come from.
struct BackboneConfig {
  std::string name = "vit_base_patch16_224";
  std::string weights;      // a file (safetensors, npz, pth), or "random" to say so by name
  std::string weights_key;  // the part of the file: a checkpoint's key (teacher), or what its
                            // tensors' names begin with; "": the usual one
  std::string normalise = "none";  // none: pixels stay in [0, 1]; imagenet; cifar; clip; half: mean
                                   // and std 0.5
  std::string positions = "auto";  // how they are resampled to another size: bicubic |
                                   // bicubic_offset | bicubic_antialias; auto: as its authors do
  std::string feature = "auto";  // class | class_and_distillation | patches (their mean); auto: as
                                 // the name says
  int64_t image_size = 0;        // 0: as the name says
  int64_t patch_size = 0;
  int64_t width = 64;              // resnet18: channels of the first stage
  std::string stem = "auto";       // resnet18: cifar | imagenet | auto, by image size
  std::string trainable = "none";  // none | all | the number of last blocks that train, e.g. "2"
  double recompute = 0.25;         // share of a ViT's frozen MLPs that the backward pass makes
                                   // again instead of keeping it: 1 is smallest, 0 fastest
  bool graphs = false;             // a frozen ViT's passes on a GPU: as CUDA graphs, where shapes
                                   // repeat; quicker launches for more of the GPU's memory

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name);
    visit("weights", weights, path_of_input);
    visit("weights_key", weights_key);
    visit("normalise", normalise, one_of({"none", "imagenet", "cifar", "clip", "half"}));
    visit("positions", positions,
          one_of({"auto", "bicubic", "bicubic_offset", "bicubic_antialias"}));
    visit("feature", feature, one_of({"auto", "class", "class_and_distillation", "patches"}));
    visit("image_size", image_size, at_least(0));
    visit("patch_size", patch_size, at_least(0));
    visit("width", width, between(1, 4096));
    visit("stem", stem, one_of({"auto", "cifar", "imagenet"}));
    visit("trainable", trainable);
    visit("recompute", recompute, between(0, 1));
    visit("graphs", graphs);
  }
};

/// REP's small query model (paper section "swift prompt selection").
struct QueryBackboneConfig {
  std::string name;  // "": the backbone itself computes the query; gets the same images
  std::string weights, weights_key;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name);
    visit("weights", weights, path_of_input);
    visit("weights_key", weights_key);
  }
};

/// AToM (REP Algorithm 1) and its alternatives: ToMe (nn/token_merging.h), and patches that are
/// left out before the first block, by CPS or PatchDropout (nn/patch_sampling.h).
struct TokenMergingConfig {
  std::string kind = "none";              // none | atom | tome | cps | patch_dropout
  int64_t n = 8;                          // ToMe's tokens merged a block; AToM's r_max is 2 n
  std::string when = "train";             // train | always: also at test, where tokens merge
  double ratio = 0.4;                     // cps, patch_dropout: share of the patches left out
  double temperature = 0.1;               // cps: tau of the softmax over scores
  std::string score = "attention_value";  // cps: [CLS]'s attention times values' norms | attention
  std::string pick = "sample";            // cps: sample | topk
  bool proportional_attention = false;    // add log(token size) to the attention logits
  bool size_weighted = true;              // merged token = size-weighted mean; false: plain mean
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("kind", kind, one_of({"none", "atom", "tome", "cps", "patch_dropout"}));
    visit("n", n, at_least(0));
    visit("when", when, one_of({"train", "always"}));
    visit("ratio", ratio, between(0, 0.99));
    visit("temperature", temperature, above(0));
    visit("score", score, one_of({"attention_value", "attention"}));
    visit("pick", pick, one_of({"sample", "topk"}));
    visit("proportional_attention", proportional_attention);
    visit("size_weighted", size_weighted);
  }
};

/// ALD (REP Algorithm 2) and its alternatives (nn/layer_dropping.h).
struct LayerDroppingConfig {
  std::string kind = "none";            // none | ald | pld | random
  double min_keep = 0.5;                // theta_bar
  double decay = 0.001;                 // gamma
  std::string threshold = "auto";       // tau, in merged tokens; auto: 2 n
  double adjustment = 0.9;              // alpha
  double keep = 0.75;                   // of kind `random`: the keep ratio of every block
  std::string time = "task_iteration";  // t: task_iteration | iteration (of the run) | epoch (of
                                        // the task) | block (published code)
  std::string count = "actual";         // merges that feed tau: actual | nominal
  bool count_own = false;               // whether a block's own merge counts for its own draw
  int64_t exempt_first = 0;             // blocks, from the first on, that are never dropped
  bool exempt_prompted = false;         // nor are those into which the method puts prompts
  bool rescale = false;                 // a block that runs: its residual branches times 1 / keep
  bool backward_only = false;           // a dropped block runs, as in a test, but the gradient goes
                                        // around it: what is saved is its backward pass
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("kind", kind, one_of({"none", "ald", "pld", "random"}));
    visit("min_keep", min_keep, between(0, 1));
    visit("decay", decay, at_least(0));
    visit("threshold", threshold);
    visit("adjustment", adjustment, between(0, 1));
    visit("keep", keep, between(0, 1));
    visit("time", time, one_of({"task_iteration", "iteration", "epoch", "block"}));
    visit("count", count, one_of({"actual", "nominal"}));
    visit("count_own", count_own);
    visit("exempt_first", exempt_first, at_least(0));
    visit("exempt_prompted", exempt_prompted);
    visit("rescale", rescale);
    visit("backward_only", backward_only);
  }
};

/// REP, for any prompt method; the defaults are "off".
struct EfficiencyConfig {
  QueryBackboneConfig query_backbone;
  TokenMergingConfig token_merging;
  LayerDroppingConfig layer_dropping;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("query_backbone", query_backbone);
    visit("token_merging", token_merging);
    visit("layer_dropping", layer_dropping);
  }
};

struct OptimizerConfig {
  std::string name = "adam";  // adam | adamw | sgd
  double lr = 0.001875;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double momentum = 0;
  double weight_decay = 0;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name, one_of({"adam", "adamw", "sgd"}));
    visit("lr", lr, above(0));
    visit("beta1", beta1, from_to_below(0, 1));
    visit("beta2", beta2, from_to_below(0, 1));
    visit("eps", eps, above(0));
    visit("momentum", momentum, between(0, 1));
    visit("weight_decay", weight_decay, at_least(0));
  }
};

/// Decoupled prompt and classifier training (CPS-Prompt, arXiv 2604.07399, section 3): in the first
/// epochs of a task all that a method trains, in the others its head alone, on features of the
/// whole image as at test, which take no gradient.
struct DecoupledConfig {
  double phase_ratio = 1;  // share of the epochs that phase 1 takes; 1: one phase
  bool train_head_in_phase1 = true;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("phase_ratio", phase_ratio, between(0, 1));
    visit("train_head_in_phase1", train_head_in_phase1);
  }
};

struct TrainConfig {
  int64_t epochs = 5;
  int64_t iterations = 0;  // a task ends at the first step at which one of these is used up, and
  double macs = 0;         // with its epochs; multiply-accumulates of its steps: exact; 0: none
  double seconds = 0;      // of its steps, by the clock: not the same from run to run
  int64_t batch_size = 16;
  bool drop_last = false;
  OptimizerConfig optimizer;
  std::string schedule = "constant";  // constant | cosine | coda | coda_no_lag (scheduled_lr in
                                      // tensor/optimizer.h)
  DecoupledConfig decoupled;
  double clip_norm = 1.0;          // L2 norm over all trained parameters; 0: no clipping
  std::string augment = "l2p";     // data/augment.h: l2p | coda | crop | none
  int64_t workers = 1;             // loader threads
  double checkpoint_seconds = 60;  // how often a task in training is saved
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("epochs", epochs, at_least(1));
    visit("iterations", iterations, at_least(0));
    visit("macs", macs, between(0, 0x1p53));
    visit("seconds", seconds, at_least(0));
    visit("batch_size", batch_size, at_least(1));
    visit("drop_last", drop_last);
    visit("optimizer", optimizer);
    visit("schedule", schedule, one_of({"constant", "cosine", "coda", "coda_no_lag"}));
    visit("decoupled", decoupled);
    visit("clip_norm", clip_norm, at_least(0));
    visit("augment", augment, one_of({"l2p", "coda", "crop", "none"}));
    visit("workers", workers, between(1, 64), not_identity);
    visit("checkpoint_seconds", checkpoint_seconds, at_least(0), not_identity);
  }
};

struct EvalConfig {
  int64_t batch_size = 64;
  std::string classes = "seen";  // among which the class-incremental accuracies score a test image:
                                 // seen | all of the stream, also those that no task has shown yet,
                                 // as the published code of L2P and DualPrompt does
  std::string offline_result;    // a result.json of joint learning on the same stream: gives omega
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("batch_size", batch_size, at_least(1));
    visit("classes", classes, one_of({"seen", "all"}));
    visit("offline_result", offline_result, other_path);
  }
};

struct Config {
  std::string name = "experiment";
  int64_t seed = 42;
  std::string device = "auto";     // auto | cpu | cuda | cuda:i
  std::string precision = "fp32";  // fp32 | bf16
  int64_t threads = 0;             // 0: all cores
  std::string memory_limit;        // 2GiB: a run whose CPU tensors take more stops; "": none
  Section dataset{"synthetic", {}, ""};
  StreamConfig stream;
  BackboneConfig backbone;
  Section method{"l2p", {}, ""};
  EfficiencyConfig efficiency;
  TrainConfig train;
  EvalConfig eval;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name, not_identity);
    visit("seed", seed, at_least(0));
    visit("device", device, not_identity);
    visit("precision", precision, one_of({"fp32", "bf16"}));
    visit("threads", threads, at_least(0), not_identity);  // see RunFolder for a resume
    visit("memory_limit", memory_limit, not_identity);
    visit("dataset", dataset);
    visit("stream", stream);
    visit("backbone", backbone);
    visit("method", method);
    visit("efficiency", efficiency);
    visit("train", train);
    visit("eval", eval);
  }
};

/// What makes a run the run it is: every field that is not marked otherwise where it is visited,
/// options of data set and method included, and under "inputs" the digests of what paths lead to
/// (run/inputs.h). An option that is written at its default is one that is left out. A resume, the
/// key of a sweep's run, a report's rows and scripts/plot.py go by this and nothing else.
Json identity(const Config& config, const Json& inputs = Json::object());
/// "train.epochs was 5 and is 6": the first difference between two identities; "" for none.
std::string first_difference(const Json& was, const Json& is, const std::string& path = "");
/// What a method's name stands for besides the method (cps_prompt: CODA-Prompt with CPS): YAML that
/// is read before a configuration whose `method` has this name, and holds unless that says
/// otherwise.
struct MethodDefaults {
  static constexpr const char* kKind = "method";
  std::string yaml;
};

/// Reads a YAML file, applies `key.sub=value` overrides in order (the value is YAML), rejects
/// unknown keys and values out of range. The options of `dataset` and `method` are only located,
/// not yet read: run/experiment.h resolves them. Files over 1 MiB are refused. Throws Error.
Config load_config(const std::string& path, const std::vector<std::string>& overrides = {});

/// The same from text; `file` names it in messages.
Config parse_config(const std::string& text, const std::string& file,
                    const std::vector<std::string>& overrides = {});

}  // namespace rep
