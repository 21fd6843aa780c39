// Generative replay: at the level of pixels DGR (Shin et al., arXiv 1705.08690), at the level of
// features brain-inspired replay (van de Ven et al. 2020, doi 10.1038/s41467-020-17866-2).
// The idea in three lines: nothing is stored; a variational auto-encoder learns along with the
// solver, and while task t is trained, the generator of the end of task t - 1 makes samples of the
// past that the solver of that time labels; loss = 1/t (own) + (1 - 1/t) (replayed), for both.
// Differs from brain-inspired replay: features of a frozen backbone (standardised by the first
// task's statistics) take the place of its five pre-trained convolutions; the variational loss is
// divided by the features' number, not by 3072; the mixture prior is an exact log-sum-exp.
// Differs from DGR: a VAE, as in van de Ven's implementation, for the GAN; own and replayed images
// go through solver and generator as one batch, so that batch norm sees what its running
// statistics will stand for; the solver may be any backbone, so pictures are generated at
// pixel_size and enlarged.
#include "methods/generative_replay.h"

#include <algorithm>
#include <tuple>

#include "data/image.h"
#include "methods/frozen_features.h"
#include "tensor/device.h"
#include "tensor/torch.h"

namespace rep {

namespace {

constexpr int64_t kGridSide = 8, kGridGap = 2;  // pictures a row and column; pixels around each

// Pictures [n * n, 3, h, w] of any range as n x n of 8-bit: each from its own darkest value (black)
// to its own brightest (white), for the generator knows nothing of the data's normalisation.
Image picture_grid(const torch::Tensor& pictures) {
  const int64_t height = pictures.size(2), width = pictures.size(3);
  const torch::Tensor low = pictures.amin({1, 2, 3}, true), high = pictures.amax({1, 2, 3}, true);
  const torch::Tensor bytes = ((pictures - low) / (high - low).clamp_min(1e-12) * 255)
                                  .round()
                                  .to(torch::kByte)
                                  .permute({0, 2, 3, 1})
                                  .cpu()
                                  .contiguous();
  Image grid = Image::make(kGridSide * (height + kGridGap) + kGridGap,
                           kGridSide * (width + kGridGap) + kGridGap);
  const uint8_t* row = bytes.data_ptr<uint8_t>();
  for (int64_t i = 0; i < pictures.size(0); ++i) {
    const int64_t top = i / kGridSide * (height + kGridGap) + kGridGap;
    const int64_t left = i % kGridSide * (width + kGridGap) + kGridGap;
    for (int64_t y = 0; y < height; ++y, row += 3 * width) {
      std::copy_n(row, 3 * width, grid.pixels.data() + 3 * ((top + y) * grid.width + left));
    }
  }
  return grid;
}

}  // namespace

GenerativeReplay::GenerativeReplay(const MethodContext& context,
                                   const GenerativeReplayOptions& options)
    : options_(options),
      num_classes_(context.num_classes),
      device_(context.device),
      network_(context, NetworkOptions{}) {}

void GenerativeReplay::begin_task(const Task& task) {
  past_ = task.first_label;
  seen_ = task.last_label();
  tasks_ = task.index + 1;
}

void GenerativeReplay::state(State& s) {
  s("past_classes", past_);
  s("seen_classes", seen_);
  s("tasks", tasks_);
}

// ---- level: feature ----

// The network is there for its features; the classifier is the VAE's.
FeatureReplay::FeatureReplay(const MethodContext& context, const GenerativeReplayOptions& options)
    : GenerativeReplay(context, options),
      images_(context.images),
      vae_({context.backbone->feature_dim(), options.hidden, options.latent, context.num_classes,
            options.gate},
           context.device),
      previous_(without_values(vae_)),
      feature_mean_(torch::zeros({context.backbone->feature_dim()}, context.device)),
      feature_std_(torch::ones({context.backbone->feature_dim()}, context.device)) {
  if (!network_.frozen()) {
    throw Error(
        "backbone.trainable: generative_replay at level: feature needs features that stay what "
        "they are; set it to none, or take level: pixel");
  }
}

void FeatureReplay::begin_task(const Task& task) {
  GenerativeReplay::begin_task(task);
  if (task.index == 0) standardise_by(task);
  if (has_past()) previous_ = frozen_copy(vae_);
}

void FeatureReplay::standardise_by(const Task& task) {
  const torch::Tensor features = features_of(images_, task.train, [&](const Batch& batch) {
                                   return network_.features(network_.fixed_input(batch));
                                 }).features;
  if (!features.defined()) return;
  feature_mean_ = features.mean(0);
  const torch::Tensor deviation = features.std(0, /*unbiased=*/false);
  // A unit that is silent in the first task must not explode in a later one.
  feature_std_ = deviation.clamp_min(std::max(1e-6, 0.01 * deviation.mean().item<double>()));
}

std::vector<TrainedRows> FeatureReplay::trained_rows() {
  std::vector<TrainedRows> rows;
  for (const torch::Tensor& parameter : parameters()) {
    const auto is = [&](const torch::Tensor& t) { return parameter.is_same(t); };
    rows.emplace_back();
    if (is(vae_.head.weight) || is(vae_.head.bias)) rows.back() = {0, 0, last_class()};
    if (is(vae_.prior_mean) || is(vae_.prior_logvar)) rows.back() = {0, 0, seen_};
  }
  return rows;
}

std::pair<torch::Tensor, torch::Tensor> FeatureReplay::replay(int64_t count) const {
  torch::NoGradGuard no_grad;
  const torch::Tensor x =
      previous_.sample(torch::randint(past_, {count}).to(torch::kLong).to(device_));
  const torch::Tensor logits = previous_.classify(previous_.encode(x)).narrow(1, 0, past_);
  return {x, (logits / options_.temperature).softmax(1)};
}

torch::Tensor FeatureReplay::loss(const Batch& batch) {
  const int64_t own = batch.size(), replayed = has_past() ? replays(batch) : 0;
  torch::Tensor x = standardised(network_.features(network_.train_input(batch)));
  // A label is a mixture of classes with all its weight in one.
  torch::Tensor weights = torch::one_hot(batch.labels, seen_).to(torch::kFloat), targets;
  if (replayed > 0) {
    torch::Tensor past;
    std::tie(past, targets) = replay(replayed);
    x = torch::cat({x, past});
    weights = torch::cat({weights, torch::constant_pad_nd(targets, {0, seen_ - past_})});
  }
  const torch::Tensor h = vae_.encode(x);
  const torch::Tensor generative = vae_.generative_loss(x, h, weights);  // [own + replayed]
  const torch::Tensor logits = vae_.classify(h);
  const torch::Tensor own_loss =
      generative.narrow(0, 0, own).mean() +
      Classifier::loss(logits.narrow(0, 0, own), batch.labels, 0, last_class());
  if (replayed == 0) return own_loss;
  const torch::Tensor log_p =
      (logits.narrow(0, own, replayed).narrow(1, 0, last_class()) / options_.temperature)
          .log_softmax(1);
  // The targets of the task's own classes are 0.
  const torch::Tensor distilled = -(targets * log_p.narrow(1, 0, past_)).sum(1).mean();
  return weighted(own_loss, generative.narrow(0, own, replayed).mean() + distilled);
}

torch::Tensor FeatureReplay::predict(const Batch& batch) {
  const torch::Tensor x = standardised(network_.features(network_.test_input(batch)));
  return vae_.classify(vae_.encode(x));
}

void FeatureReplay::state(State& s) {
  GenerativeReplay::state(s);
  s("feature_mean", feature_mean_);
  s("feature_std", feature_std_);
  s.scope("vae", [&](State& inner) { model_state(vae_, inner); });
  s.scope("previous", [&](State& inner) { model_state(previous_, inner); });
}

// ---- level: pixel ----

PixelReplay::PixelReplay(const MethodContext& context, const GenerativeReplayOptions& options)
    : GenerativeReplay(context, options),
      image_size_(context.backbone->image_size()),
      generated_index_(context.images.size()),
      picture_seed_(context.seed),
      folder_(context.folder),
      vae_(options.pixel_size, options.hidden, options.latent, context.device),
      previous_(without_values(vae_)) {
  if (options.pixel_size % 16 != 0 || options.pixel_size > image_size_) {
    throw Error("method: pixel_size " + std::to_string(options.pixel_size) +
                " must be a multiple of 16 and at most the network's image size, " +
                std::to_string(image_size_) + "; choose 16, 32, 48 or 64");
  }
}

void PixelReplay::begin_task(const Task& task) {
  GenerativeReplay::begin_task(task);
  if (!has_past()) return;
  previous_ = frozen_copy(vae_);
  previous_solver_ = network_.copy_values();
}

std::vector<torch::Tensor> PixelReplay::parameters() {
  auto parameters = network_.parameters();
  const auto generator = parameters_of(vae_);
  parameters.insert(parameters.end(), generator.begin(), generator.end());
  return parameters;
}

std::vector<TrainedRows> PixelReplay::trained_rows() {
  auto rows = network_.trained_rows({0, last_class()});
  rows.resize(parameters().size());
  return rows;
}

std::pair<torch::Tensor, Batch> PixelReplay::replay(int64_t count) {
  torch::NoGradGuard no_grad;
  const torch::Tensor pictures =
      previous_.decode(torch::randn({count, options_.latent}).to(device_), /*training=*/false);
  Batch batch;
  batch.images = pictures;
  if (options_.pixel_size < image_size_) {
    batch.images = torch::upsample_bilinear2d(pictures, {image_size_, image_size_},
                                              /*align_corners=*/false);
  }
  batch.indices = torch::full({count}, generated_index_, torch::kLong);  // none of the data set's
  batch.labels = network_.as(previous_solver_, [&] {
    return network_.logits(network_.fixed_input(batch)).narrow(1, 0, past_).argmax(1);
  });
  return {pictures, batch};
}

torch::Tensor PixelReplay::loss(const Batch& batch) {
  const int64_t own = batch.size(), replayed = has_past() ? replays(batch) : 0;
  torch::Tensor pictures =
      torch::adaptive_avg_pool2d(batch.images, {options_.pixel_size, options_.pixel_size});
  Batch all = batch;
  if (replayed > 0) {
    const auto [past_pictures, past] = replay(replayed);
    pictures = torch::cat({pictures, past_pictures});
    all = joined(batch, past);
  }
  const torch::Tensor generative = vae_.loss(pictures);  // [own + replayed]
  const torch::Tensor logits = network_.logits(network_.train_input(all));
  const auto part = [&](int64_t first, int64_t count) {
    return generative.narrow(0, first, count).mean() +
           Classifier::loss(logits.narrow(0, first, count), all.labels.narrow(0, first, count), 0,
                            last_class());
  };
  return replayed > 0 ? weighted(part(0, own), part(own, replayed)) : part(0, own);
}

void PixelReplay::end_task(const Task& task) {
  previous_ = without_values(vae_);
  previous_solver_.clear();
  if (folder_.empty()) return;
  // The same latent points after every task, from a generator of their own: a picture does not move
  // any other random number.
  torch::NoGradGuard no_grad;
  auto generator = make_generator(picture_seed_, RandomUse::kGeneratedPictures);
  const torch::Tensor z = torch::randn({kGridSide * kGridSide, options_.latent}, generator);
  write_png(folder_ + "/samples-task" + std::to_string(task.index) + ".png",
            picture_grid(vae_.decode(z.to(device_), /*training=*/false)));
}

void PixelReplay::state(State& s) {
  GenerativeReplay::state(s);
  network_.state(s);
  s.scope("generator", [&](State& inner) { model_state(vae_, inner); });
  s.scope("previous", [&](State& inner) { model_state(previous_, inner); });
  s("previous_solver", previous_solver_);
}

namespace {

MethodKind generative_replay_kind() {
  MethodKind kind = method_kind<FeatureReplay, GenerativeReplayOptions>();
  kind.make = [](const MethodContext& context) -> std::unique_ptr<Method> {
    const auto options = read_section<GenerativeReplayOptions>(context.options);
    if (options.level == "pixel") return std::make_unique<PixelReplay>(context, options);
    return std::make_unique<FeatureReplay>(context, options);
  };
  return kind;
}

const Registered<MethodKind> kGenerativeReplay{
    "generative_replay",
    "Shin et al. 2017 (arXiv 1705.08690); of features: van de Ven et al. 2020 (doi "
    "10.1038/s41467-020-17866-2)",
    generative_replay_kind()};

}  // namespace

}  // namespace rep
