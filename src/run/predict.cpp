#include "run/predict.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/parallel.h"
#include "core/random.h"
#include "tensor/device.h"
#include "tensor/torch.h"

namespace rep {
namespace {

// Files as they were named, decoded as the image files of a data set are.
class NamedFiles final : public Dataset {
 public:
  NamedFiles(const std::vector<std::string>& paths, ExifOrientation exif)
      : paths_(paths), labels_(paths.size(), 0), exif_(exif) {}
  const std::vector<int64_t>& labels() const override { return labels_; }
  const std::vector<std::string>& class_names() const override { return names_; }
  std::string path(int64_t index) const override { return paths_.at(static_cast<size_t>(index)); }
  Image image(int64_t index) const override { return read_image(path(index)); }
  void part(int64_t index, const Wanted& wanted, ImagePart& out) const override {
    read_part(path(index), exif_, wanted, out);
  }
  std::string fingerprint() const override { return ""; }

 private:
  const std::vector<std::string>& paths_;
  std::vector<int64_t> labels_;
  std::vector<std::string> names_;
  ExifOrientation exif_;
};

// The network's input of those files that can be decoded, float [n, 3, S, S]; the others' faults go
// into `predictions`. As many threads decode as the loader has workers.
torch::Tensor decode(const NamedFiles& files, const Transform& view, int64_t workers,
                     std::vector<Prediction>& predictions) {
  const int64_t size = view.size(), count = files.size();
  const torch::Tensor images = torch::empty({count, 3, size, size}, torch::kFloat);
  float* const out = images.data_ptr<float>();
  parallel_for(count, workers, [&](int64_t i) {
    try {
      ImagePart part;
      const View wanted = view.fetch(files, i, Random({0}), part);  // of a test: nothing is drawn
      view.apply(part, wanted, out + i * 3 * size * size);
    } catch (const Error& error) {
      predictions[static_cast<size_t>(i)].fault = error.what();
    }
  });
  std::vector<int64_t> decoded;
  for (int64_t i = 0; i < count; ++i) {
    if (predictions[static_cast<size_t>(i)].fault.empty()) decoded.push_back(i);
  }
  return images.index_select(0, torch::tensor(decoded, torch::kLong));
}

// As the data set's image files are turned; of a run that went on, as those it learned last.
ExifOrientation exif_of(const Json& dataset) {
  if (dataset.contains("added")) return exif_of(dataset["added"]);
  return dataset.value("exif_orientation", "apply") == "ignore" ? ExifOrientation::kIgnore
                                                                : ExifOrientation::kApply;
}

}  // namespace

std::vector<int64_t> Prediction::top(int64_t count) const {
  std::vector<int64_t> labels(probabilities.size());
  std::iota(labels.begin(), labels.end(), 0);
  const auto last =
      labels.begin() + std::min(static_cast<std::ptrdiff_t>(count), labels.end() - labels.begin());
  std::partial_sort(labels.begin(), last, labels.end(), [&](int64_t a, int64_t b) {
    const double p = probabilities[static_cast<size_t>(a)];
    const double q = probabilities[static_cast<size_t>(b)];
    return p > q || (p == q && a < b);
  });
  labels.erase(last, labels.end());
  return labels;
}

Predictor::Predictor(FinishedRun run) : run_(std::move(run)), data_(run_.class_names) {
  Config config = run_.config;
  config.stream.room_for = run_.made_for;  // of a run that stopped early, more than its tasks
  const torch::Device device = choose_device(config.device);
  seed_everything(config.seed);  // random weights are a function of the seed
  learner_ = std::make_unique<Learner>(config, run_.stream, data_, device);
  State state = open_checkpoint(run_, learner_->inputs, device);
  state.scope("learner", [&](State& inner) { learner_->state(inner); });
  exif_ = exif_of(config.dataset.effective);
}

const std::string& Predictor::class_name(int64_t label) const {
  const auto id = run_.stream.class_order.at(static_cast<size_t>(label));
  return run_.class_names.at(static_cast<size_t>(id));
}

std::vector<Prediction> Predictor::predict(const std::vector<std::string>& paths) {
  const c10::InferenceMode inference;
  std::vector<Prediction> predictions;
  for (const std::string& path : paths) predictions.push_back({path, {}, ""});
  const Config& config = run_.config;
  Batch batch;
  batch.images = decode(NamedFiles(paths, exif_), learner_->transform(config, /*train=*/false),
                        config.train.workers, predictions)
                     .to(learner_->device);
  if (batch.images.size(0) == 0) return predictions;
  batch.labels = torch::zeros({batch.images.size(0)}, torch::kLong).to(learner_->device);
  batch.indices = torch::arange(batch.images.size(0), torch::kLong);
  const torch::Tensor logits = learner_->method->predict(batch);
  const torch::Tensor shares = logits.narrow(1, 0, run_.stream.num_classes())
                                   .to(torch::kDouble)
                                   .softmax(1)
                                   .cpu()
                                   .contiguous();
  if (shares.isnan().any().item<bool>()) {
    throw Error(run_.path + ": its predictions are not numbers (NaN); the run diverged");
  }
  const double* row = shares.data_ptr<double>();
  for (Prediction& prediction : predictions) {
    if (!prediction.fault.empty()) continue;
    prediction.probabilities.assign(row, row + shares.size(1));
    row += shares.size(1);
  }
  return predictions;
}

}  // namespace rep
