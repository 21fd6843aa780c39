#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "core/stream_config.h"

namespace rep {

// One experiment. Every struct has the defaults in place; key == field == JSON key == the paper's
// word.

/// A vision transformer (nn/vit.h) or ResNet and where its weights come from.
struct BackboneConfig {
  std::string name = "vit_base_patch16_224";
  std::string weights;
  std::string weights_key;
  std::string normalise = "none";
  std::string positions = "auto";
  std::string feature = "auto";
  int64_t image_size = 0;
  int64_t patch_size = 0;
  int64_t width = 64;
  std::string stem = "auto";
  std::string trainable = "none";
  double recompute = 0.25;
  int64_t recompute_blocks = 0;
  bool graphs = false;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name, doc("Architecture (rep list backbones)."));
    visit("weights", weights, path_of_input,
          doc("File of weights: safetensors, npz, a PyTorch checkpoint or TorchScript; "
              "pretrain:CONFIG.yaml: a small ViT that is pre-trained once; random: none, said by "
              "name."));
    visit("weights_key", weights_key,
          doc("Part of a file that holds several models: a checkpoint's key such as teacher, or "
              "what the names of its tensors begin with; empty: the usual one."));
    visit("normalise", normalise, one_of({"none", "imagenet", "cifar", "clip", "half"}),
          doc("Pixels as the network gets them. none: in [0, 1]; half: (p - 0.5) / 0.5; imagenet, "
              "cifar, clip: by that data's mean and deviation. Take what the weights were trained "
              "with."));
    visit("positions", positions,
          one_of({"auto", "bicubic", "bicubic_offset", "bicubic_antialias"}),
          doc("How positions are resampled for another image size; auto: as the architecture's "
              "authors do."));
    visit("feature", feature, one_of({"auto", "class", "class_and_distillation", "patches"}),
          doc("Tokens that make the feature. class: [CLS]; class_and_distillation: their mean; "
              "patches: the mean of the patches; auto: as the architecture says."));
    visit("image_size", image_size, at_least(0),
          doc("Side of the images that the network sees; 0: as the architecture says.", "pixels"));
    visit("patch_size", patch_size, at_least(0),
          doc("Side of a ViT's patches; 0: as the architecture says.", "pixels"));
    visit("width", width, between(1, 4096),
          doc("Channels of a resnet18's first stage.", "channels"));
    visit("stem", stem, one_of({"auto", "cifar", "imagenet"}),
          doc("First layers of a resnet18. cifar: one 3 x 3 convolution; imagenet: 7 x 7 and "
              "pooling; auto: by the size of the images."));
    visit("trainable", trainable,
          doc("What trains of the backbone: none, all, or the number of last blocks, e.g. 2."));
    visit("recompute", recompute, between(0, 1),
          doc("Fraction of each frozen MLP of a ViT that the backward pass recomputes (activation "
              "checkpointing): 1: least memory; 0: fastest. The result is the same."));
    visit(
        "recompute_blocks", recompute_blocks, at_least(0), not_identity,
        doc("Checkpoint every N frozen blocks of a ViT: only their input is kept, and the backward "
            "pass recomputes the rest; 0: none. The result is the same.",
            "blocks"));
    visit("graphs", graphs,
          doc("Replay a frozen ViT's passes on a GPU as CUDA graphs where shapes repeat: quicker "
              "launches for more of its memory."));
  }
};

/// REP's small query model (paper section "swift prompt selection").
struct QueryBackboneConfig {
  std::string name;
  std::string weights, weights_key;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name,
          doc("Small ViT that computes the queries (rep list backbones); empty: the backbone "
              "itself."));
    visit("weights", weights, path_of_input, doc("File of its weights, or random."));
    visit("weights_key", weights_key, doc("Part of that file, as backbone.weights_key."));
  }
};

/// AToM (REP Algorithm 1) and its alternatives: ToMe (nn/token_merging.h), and patches that are
/// left out before the first block, by CPS or PatchDropout (nn/patch_sampling.h).
struct TokenMergingConfig {
  std::string kind = "none";
  int64_t n = 8;
  std::string when = "train";
  double ratio = 0.4;
  double temperature = 0.1;
  std::string score = "attention_value";
  std::string pick = "sample";
  bool proportional_attention = false;
  bool size_weighted = true;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("kind", kind, one_of({"none", "atom", "tome", "cps", "patch_dropout"}),
          doc("How image tokens become fewer. atom: merged, more in deeper blocks (REP's Algorithm "
              "1); tome: n merged in every block; cps: patches left out by the query's attention; "
              "patch_dropout: left out at random.",
              "", "arXiv 2406.04772; ToMe: arXiv 2210.09461; CPS-Prompt: arXiv 2604.07399"));
    visit("n", n, at_least(0),
          doc("Tokens merged in a block by tome; atom merges from none in the first to 2 n in the "
              "last.",
              "tokens", "arXiv 2406.04772"));
    visit("when", when, one_of({"train", "always"}),
          doc("train: tests see all tokens; always: tokens merge at test, too."));
    visit("ratio", ratio, between(0, 0.99),
          doc("Fraction of the patches that cps and patch_dropout leave out.", "",
              "arXiv 2604.07399"));
    visit("temperature", temperature, above(0),
          doc("Temperature of cps's softmax over scores (tau).", "", "arXiv 2604.07399"));
    visit(
        "score", score, one_of({"attention_value", "attention"}),
        doc("Score of a patch for cps: [CLS]'s attention, or that times the length of the value."));
    visit("pick", pick, one_of({"sample", "topk"}),
          doc("How cps picks patches by their scores: sample them without replacement, or take the "
              "highest (topk)."));
    visit("proportional_attention", proportional_attention,
          doc("Add the logarithm of a token's size to the attention logits.", "",
              "arXiv 2210.09461"));
    visit("size_weighted", size_weighted,
          doc("A merged token is the mean weighted by size; false: the plain mean.", "",
              "arXiv 2210.09461"));
  }
};

/// ALD (REP Algorithm 2) and its alternatives (nn/layer_dropping.h).
struct LayerDroppingConfig {
  std::string kind = "none";
  double min_keep = 0.5;
  double decay = 0.001;
  std::string threshold = "auto";
  double adjustment = 0.9;
  double keep = 0.75;
  std::string time = "task_iteration";
  std::string count = "actual";
  bool count_own = false;
  int64_t exempt_first = 0;
  bool exempt_prompted = false;
  bool rescale = false;
  bool backward_only = false;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("kind", kind, one_of({"none", "ald", "pld", "random"}),
          doc("How training steps skip blocks. ald: adaptively (REP's Algorithm 2); pld: "
              "progressive layer dropping; random: every block with the same probability.",
              "", "arXiv 2406.04772; PLD: arXiv 2010.13369"));
    visit("min_keep", min_keep, between(0, 1),
          doc("Least keep ratio, which ald and pld approach with time (theta bar).", "",
              "arXiv 2406.04772"));
    visit("decay", decay, at_least(0),
          doc("How fast they approach it: e^(-decay t) (gamma).", "", "arXiv 2406.04772"));
    visit(
        "threshold", threshold,
        doc("Merged tokens before a block from which on ald drops it more often (tau); auto: 2 n.",
            "tokens", "arXiv 2406.04772"));
    visit("adjustment", adjustment, between(0, 1),
          doc("Factor on the keep ratio of such a block (alpha).", "", "arXiv 2406.04772"));
    visit("keep", keep, between(0, 1), doc("Keep ratio of every block for kind random."));
    visit("time", time, one_of({"task_iteration", "iteration", "epoch", "block"}),
          doc("The clock t: iterations of the task, iterations of the run, epochs of the task, or "
              "the block's number.",
              "", "task_iteration: arXiv 2406.04772; block: its published code"));
    visit("count", count, one_of({"actual", "nominal"}),
          doc("Merges that count for the threshold: those that happen (actual), or those of the "
              "schedule (nominal)."));
    visit("count_own", count_own, doc("Whether a block's own merge counts for its own draw."));
    visit("exempt_first", exempt_first, at_least(0),
          doc("First blocks that are never dropped.", "blocks"));
    visit("exempt_prompted", exempt_prompted,
          doc("Never drop a block into which the method puts prompts."));
    visit("rescale", rescale,
          doc("Divide the residual branches of a block that runs by its keep ratio."));
    visit("backward_only", backward_only,
          doc("A dropped block runs, but the gradient goes around it: only its backward pass is "
              "saved."));
  }
};

/// REP, for any prompt method; the defaults are "off".
struct EfficiencyConfig {
  QueryBackboneConfig query_backbone;
  TokenMergingConfig token_merging;
  LayerDroppingConfig layer_dropping;
  std::string query_cache;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("query_backbone", query_backbone,
          doc("The small model that selects the prompts in place of the backbone.", "",
              "arXiv 2406.04772"));
    visit(
        "query_cache", query_cache, other_path,
        doc("Folder in which runs share the queries (features of the frozen model) of images that "
            "have one view: of test images, and of training images with train.augment none. "
            "Empty: each run computes its own."));
    visit("token_merging", token_merging,
          doc("Fewer tokens in training steps.", "", "arXiv 2406.04772"));
    visit("layer_dropping", layer_dropping,
          doc("Fewer blocks in training steps.", "", "arXiv 2406.04772"));
  }
};

struct OptimizerConfig {
  std::string name = "adam";
  double lr = 0.001875;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double momentum = 0;
  double weight_decay = 0;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name, one_of({"adam", "adamw", "sgd"}), doc("Optimiser."));
    visit("lr", lr, above(0), doc("Learning rate."));
    visit("beta1", beta1, from_to_below(0, 1), doc("Decay of Adam's first moment."));
    visit("beta2", beta2, from_to_below(0, 1), doc("Decay of Adam's second moment."));
    visit("eps", eps, above(0), doc("Added to Adam's denominator."));
    visit("momentum", momentum, between(0, 1), doc("Momentum of sgd."));
    visit("weight_decay", weight_decay, at_least(0),
          doc("Weight decay: decoupled for adamw, an L2 term of the gradient for the others."));
  }
};

/// Decoupled prompt and classifier training (CPS-Prompt, arXiv 2604.07399, section 3): in the first
/// epochs of a task all that a method trains, in the others its head alone, on features of the
/// whole image as at test, which take no gradient.
struct DecoupledConfig {
  double phase_ratio = 1;
  bool train_head_in_phase1 = true;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("phase_ratio", phase_ratio, between(0, 1),
          doc("Fraction of a task's epochs in which all that a method trains does; in the others "
              "its head trains alone, on features of whole images. 1: no second phase.",
              "", "arXiv 2604.07399, section 3"));
    visit(
        "train_head_in_phase1", train_head_in_phase1,
        doc("Whether the head trains in the first phase, too.", "", "arXiv 2604.07399, section 3"));
  }
};

struct TrainConfig {
  int64_t epochs = 5;
  int64_t iterations = 0;
  double macs = 0;
  double seconds = 0;
  int64_t batch_size = 16;
  int64_t micro_batch_size = 0;  // images of a batch that go through at once, a divisor of it:
                                 // their gradients add up to the batch's; 0: all
  bool drop_last = false;
  OptimizerConfig optimizer;
  std::string schedule = "constant";
  DecoupledConfig decoupled;
  double clip_norm = 1.0;
  std::string augment = "l2p";
  int64_t workers = 1;
  double checkpoint_seconds = 60;
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("epochs", epochs, at_least(1), doc("Most epochs of a task.", "epochs"));
    visit("iterations", iterations, at_least(0),
          doc("Most steps of a task; 0: as many as its epochs have.", "steps"));
    visit("macs", macs, between(0, 0x1p53),
          doc("Most multiply-accumulates of a task's steps, exactly the same on every machine; 0: "
              "no limit.",
              "MAC"));
    visit("seconds", seconds, at_least(0),
          doc("Most time of a task's steps by the clock, not reproducible; 0: no limit.", "s"));
    visit("batch_size", batch_size, at_least(1),
          doc("Images of a step, of all processes together.", "images"));
    visit("micro_batch_size", micro_batch_size, at_least(0), not_identity,
          doc("Images of a batch that go through at once, a divisor of batch_size; their gradients "
              "add "
              "up to the batch's, to rounding. 0: all.",
              "images"));
    visit("drop_last", drop_last, doc("Leave out an epoch's last batch when it is not full."));
    visit("optimizer", optimizer, doc("The optimiser of a task; it starts anew with each."));
    visit("schedule", schedule, one_of({"constant", "cosine", "coda", "coda_no_lag"}),
          doc("Learning rate over a task's epochs. constant; cosine: to 0; coda: CODA-Prompt's; "
              "coda_no_lag: the same without its first epoch's delay.",
              "", "coda: arXiv 2211.13218; coda_no_lag: arXiv 2604.07399"));
    visit("decoupled", decoupled, doc("Training of prompts and head in two phases."));
    visit("clip_norm", clip_norm, at_least(0),
          doc("Largest L2 norm of the gradient of all that trains; 0: no clipping."));
    visit("augment", augment, one_of({"l2p", "coda", "crop", "none"}),
          doc("Views of the training images. l2p: crops of 5 to 100 % and flips; coda: of 8 to 100 "
              "%; crop: padded crops and flips (small images); none: resized only. Test views "
              "follow.",
              "", "l2p: l2p-pytorch; coda: CODA-Prompt's code; crop: Mammoth"));
    visit("workers", workers, between(1, 64), not_identity,
          doc("Loader threads; results do not depend on them.", "threads"));
    visit("checkpoint_seconds", checkpoint_seconds, at_least(0), not_identity,
          doc("Time between checkpoints of a task in training; 0: after every step.", "s"));
  }
};

struct EvalConfig {
  int64_t batch_size = 64;
  std::string classes = "seen";
  int64_t every = 0;
  int64_t every_tasks = 1;
  std::string offline_result;
  std::string predictions = "none";
  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("batch_size", batch_size, at_least(1), doc("Images tested at once.", "images"));
    visit("classes", classes, one_of({"seen", "all"}),
          doc("Classes among which a test image is scored. seen: those of the tasks so far; all: "
              "of the whole stream, as published code of L2P and DualPrompt does."));
    visit("every", every, at_least(0),
          doc("Images learned between two tests of the any-time accuracy; 0: none.", "images",
              "i-Blurry (arXiv 2110.10031)"));
    visit("every_tasks", every_tasks, at_least(1),
          doc("All tasks so far are tested after every N-th task and after the last.", "tasks"));
    visit(
        "offline_result", offline_result, other_path,
        doc("result.json of joint learning on the same stream, with which the result says omega."));
    visit("predictions", predictions, one_of({"none", "top5", "logits"}), not_identity,
          doc("What is kept of each test image in DIR/predictions: the five likeliest classes and "
              "their logits, or the logits of all."));
  }
};

struct Config {
  std::string name = "experiment";
  int64_t seed = 42;
  std::string device = "auto";
  std::string precision = "fp32";
  int64_t threads = 0;
  std::string memory_limit;
  Section dataset{"synthetic", {}, ""};
  StreamConfig stream;
  BackboneConfig backbone;
  Section method{"l2p", {}, ""};
  EfficiencyConfig efficiency;
  TrainConfig train;
  EvalConfig eval;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name, not_identity, doc("Name of the experiment."));
    visit("seed", seed, at_least(0),
          doc("Seed of initialisation, augmentation and the order of images."));
    visit("device", device, not_identity,
          doc("auto: a GPU where LibTorch sees one; cpu; cuda; cuda:1."));
    visit("precision", precision, one_of({"fp32", "bf16"}),
          doc("Precision of a frozen ViT's matrix products; head, prompts, optimiser and losses "
              "stay fp32."));
    visit("threads", threads, at_least(0), not_identity,
          doc("CPU threads; 0: all cores, or as many as the run that is resumed.",
              "threads"));  // see RunFolder for a resume
    visit("memory_limit", memory_limit, not_identity,
          doc("What the process may hold resident, e.g. 512MiB: the run fits itself into it, and "
              "ends "
              "only when nothing fits. Empty: no limit."));
    visit("dataset", dataset,
          doc("The data set and its options; a name alone takes their defaults."));
    visit("stream", stream, doc("How the data set is cut into tasks."));
    visit("backbone", backbone, doc("The network that turns images into features."));
    visit("method", method,
          doc("The continual-learning method and its options; a name alone takes their defaults."));
    visit("efficiency", efficiency,
          doc("REP, which makes a prompt method cheaper; all of it is off by default.", "",
              "arXiv 2406.04772"));
    visit("train", train, doc("How a task is trained."));
    visit("eval", eval, doc("How tasks are tested."));
  }
};

/// What a method's name stands for besides the method (cps_prompt: CODA-Prompt with CPS): YAML that
/// is read before a configuration whose `method` has this name, and holds unless that says
/// otherwise.
struct MethodDefaults {
  static constexpr const char* kKind = "method";
  std::string yaml;
};

/// Reads a YAML file, applies `key.sub=value` overrides in order (the value is YAML), rejects
/// unknown keys and values out of range. The options of `dataset` and `method` are only located,
/// not yet read: run/setup.h resolves them. Files over 1 MiB are refused. Throws Error.
Config load_config(const std::string& path, const std::vector<std::string>& overrides = {});

/// The same from text; `file` names it in messages.
Config parse_config(const std::string& text, const std::string& file,
                    const std::vector<std::string>& overrides = {});

}  // namespace rep
