// InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning (Liang and Li, arXiv
// 2404.00228).
// The idea in three lines: each task adds a low-rank branch to keys and values, whose
// down-projection is not trained but chosen in directions that earlier tasks' inputs leave free; so
// its up-projection can learn without moving what they computed. Branches add up and are folded
// into the weights: a test is one plain pass (beside weights in bf16 branches stay thin products).
// Differs from the authors' code: no k-means over features, which nothing reads; earlier branches
// are folded while a task trains; where the first task already uses half of all directions, the
// basis is exchanged for its complement (theirs keeps it and calls it that); where fewer directions
// than the rank are left free, a branch takes those alone (theirs goes on with used ones).
#include "methods/inflora.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "kernels/products.h"
#include "methods/frozen_features.h"
#include "tensor/torch.h"

namespace rep {

// ---- the subspaces ----

namespace {

// Left singular vectors and singular values, largest first.
std::pair<torch::Tensor, torch::Tensor> left_vectors(const torch::Tensor& m) {
  const auto [U, S, V] = torch::linalg_svd(m, /*full_matrices=*/true);
  return {U, S};
}

}  // namespace

// P C or (I - P) C; by the data's rule with the projector on the right, too.
torch::Tensor SubspaceMemory::projected(const torch::Tensor& c, bool onto) const {
  if (columns() == 0) return onto ? torch::zeros_like(c) : c;
  const torch::Tensor F = basis_.to(torch::kCPU, torch::kDouble);
  const auto apply = [&](const torch::Tensor& m) {
    const torch::Tensor part = torch::mm(F, torch::mm(F.t(), m));
    return onto ? part : m - part;
  };
  return options_.covariance_rule ? apply(c) : apply(apply(c).t());
}

torch::Tensor SubspaceMemory::design_down(const torch::Tensor& covariance, int64_t rank) const {
  const torch::Tensor c = covariance.to(torch::kCPU, torch::kDouble);
  const auto [U, S] = left_vectors(projected(c, /*onto=*/is_free_space_));
  // Left vectors behind the free ones are of the used space.
  const int64_t count = std::min(rank, is_free_space_ ? columns() : c.size(0) - columns());
  torch::Tensor down = torch::zeros({rank, c.size(0)});
  down.narrow(0, 0, count).copy_(U.narrow(1, 0, count).t() / std::sqrt(3.0));
  return down;
}

void SubspaceMemory::update(const torch::Tensor& covariance, double threshold) {
  const torch::Tensor c = covariance.to(torch::kCPU, torch::kDouble);
  is_free_space_ ? shrink_free(c, threshold) : extend_used(c, threshold);
  const int64_t D = c.size(0);
  if (!options_.dual || is_free_space_ || columns() <= D / 2) return;
  const auto [U, S] = left_vectors(basis_.to(torch::kDouble));
  basis_ = U.narrow(1, columns(), D - columns()).to(torch::kFloat).contiguous();
  is_free_space_ = true;
}

// Of all directions.
double SubspaceMemory::energy_of(const torch::Tensor& c) const {
  return (options_.covariance_rule ? c.square().sum() : c.trace()).item<double>();
}

void SubspaceMemory::extend_used(const torch::Tensor& c, double threshold) {
  const double energy = energy_of(c);
  const bool first = !basis_.defined();
  const auto [U, S] = left_vectors(projected(c, /*onto=*/false));
  const torch::Tensor shares = (options_.covariance_rule ? S.square() : S) / energy;
  double held = first ? 0 : 1 - shares.sum().item<double>();
  int64_t count = 0;
  const int64_t most = c.size(0) - columns();
  while (count < most) {
    const double next = shares[count].item<double>();
    // The first task stops before it reaches the threshold, later ones once they have.
    if (first ? held + next >= threshold : held >= threshold) break;
    held += next;
    ++count;
  }
  if (first) count = std::max<int64_t>(count, 1);
  if (count == 0) return;
  const torch::Tensor fresh = U.narrow(1, 0, count).to(torch::kFloat);
  basis_ = (first ? fresh : torch::cat({basis_, fresh}, 1)).contiguous();
}

void SubspaceMemory::shrink_free(const torch::Tensor& c, double threshold) {
  const double energy = energy_of(c);
  const auto [U, S] = left_vectors(projected(c, /*onto=*/true));
  const torch::Tensor shares = (options_.covariance_rule ? S.square() : S) / energy;
  double held = shares.sum().item<double>();
  int64_t count = 0;
  while (count < columns() && held >= 1 - threshold) held -= shares[count++].item<double>();
  if (count == 0) return;
  const torch::Tensor used = U.narrow(1, 0, count), F = basis_.to(torch::kDouble);
  const auto [rest, values] = left_vectors(F - torch::mm(used, torch::mm(used.t(), F)));
  basis_ = rest.narrow(1, 0, columns() - count).to(torch::kFloat).contiguous();
}

void SubspaceMemory::state(State& s) {
  s.on_cpu("basis", basis_);
  s("free_space", is_free_space_);
}

// ---- the method ----

InfLora::InfLora(const MethodContext& context, const InfLoraOptions& options)
    : options_(options),
      backbone_(context.vit()),
      efficiency_(context.efficiency),
      images_(context.images),
      num_tasks_(context.num_tasks),
      device_(context.device),
      head_(backbone_->feature_dim(), context.num_classes, context.device,
            Classifier::Init::kUniform) {
  require_frozen(context);
  Lora::check_targets(options.targets, "method: targets");
  for (const std::string& target : options.targets) {
    if (target == "fc1" || target == "fc2") {
      throw Error("method: targets of inflora are of q, k and v, whose inputs it measures, not " +
                  target);
    }
  }
  if (options.rank > backbone_->feature_dim()) {
    throw Error("method: rank " + std::to_string(options.rank) + " is more than the ViT's width, " +
                std::to_string(backbone_->feature_dim()));
  }
  memories_.assign(static_cast<size_t>(backbone_->depth()),
                   SubspaceMemory({options.memory == "dualgpm", options.energy == "covariance"}));
  fold();
}

Lora InfLora::new_branch() const {
  Lora branch(backbone_->depth(), backbone_->feature_dim(), 0,
              {options_.rank, options_.targets, /*shared_down=*/true}, device_);
  for (auto& down : branch.downs()) down.set_requires_grad(false);
  return branch;
}

// The order of passes is the key of their random views.
InfLora::Images InfLora::images_of(const Task& task, int64_t pass) const {
  return [this, &task, pass](const std::function<void(const Batch&)>& visit) {
    if (options_.covariance_images == "test") return images_.each_batch(task.train, visit);
    images_.each_random_batch(task.train, static_cast<uint64_t>(2 * task.index + pass), visit);
  };
}

void InfLora::begin(const Task& task, const Images& images) {
  trained_ = ClassRange::of(task, "current");
  if (!branches_.empty()) branches_.back().freeze();
  training_ = false;
  fold();
  measure_covariances(task, images);
  branches_.push_back(new_branch());
  training_ = true;
  if (covariances_.empty()) return;
  torch::NoGradGuard no_grad;
  const auto downs = branches_.back().downs();
  for (size_t i = 0; i < downs.size(); ++i) {
    torch::Tensor(downs[i]).copy_(memories_[i].design_down(covariances_[i], options_.rank));
  }
  covariances_.clear();  // K D^2 doubles, which training has no use for
}

void InfLora::end(const Task& task, const Images& images) {
  branches_.back().freeze();
  training_ = false;
  fold();
  measure_covariances(task, images);
  if (covariances_.empty() || options_.memory == "none") return;
  const double share = static_cast<double>(task.index) / static_cast<double>(num_tasks_);
  for (size_t i = 0; i < memories_.size(); ++i) {
    memories_[i].update(covariances_[i], options_.lamb + (options_.lame - options_.lamb) * share);
  }
}

// C = the mean of x x^T over all tokens of the images, of the blocks' norm1: of the pass that tests
// take, whose inputs are those that a later task must not disturb.
void InfLora::measure_covariances(const Task& task, const Images& images) {
  torch::NoGradGuard no_grad;
  covariances_.clear();
  const int64_t K = backbone_->depth(), D = backbone_->feature_dim();
  std::vector<torch::Tensor> sums;
  for (int64_t i = 0; i < K; ++i) {
    sums.push_back(torch::zeros({D, D}, torch::device(device_).dtype(torch::kDouble)));
  }
  std::vector<int64_t> tokens(static_cast<size_t>(K), 0);
  ForwardPlan plan = efficiency_.test_plan();
  plan.branches = folded_;
  plan.observe = [&](const torch::Tensor& x, int64_t block) {
    sums[static_cast<size_t>(block)].add_(product(x.t(), x, torch::kFloat));
    tokens[static_cast<size_t>(block)] += x.size(0);
  };
  images([&](const Batch& batch) { backbone_->features(batch.images, plan); });
  if (tokens[0] == 0) return;
  for (size_t i = 0; i < sums.size(); ++i) {
    covariances_.push_back((sums[i] / tokens[i]).cpu());
    if (!covariances_.back().isfinite().all().item<bool>()) {
      throw Diverged("the features that inflora measures are not finite in task " +
                     std::to_string(task.index + 1) + ", block " + std::to_string(i));
    }
  }
}

void InfLora::fold() {
  torch::NoGradGuard no_grad;
  folded_.assign(static_cast<size_t>(backbone_->depth()), {});
  const size_t frozen = branches_.size() - (training_ ? 1 : 0);
  for (size_t i = 0; i < folded_.size(); ++i) {
    for (size_t j = 0; j < frozen; ++j) branches_[j].add_to(folded_[i], static_cast<int64_t>(i));
    folded_[i].qkv = joined(folded_[i].qkv);
    fold_qkv(folded_[i], backbone_->blocks[i]->attn->qkv->weight);
  }
}

std::vector<BlockBranches> InfLora::branches() const {
  std::vector<BlockBranches> all = folded_;
  if (!training_) return all;
  for (size_t i = 0; i < all.size(); ++i) {
    branches_.back().add_to(all[i], static_cast<int64_t>(i));
  }
  return all;
}

std::vector<torch::Tensor> InfLora::parameters() {
  std::vector<torch::Tensor> all = head_.parameters();
  if (!training_) return all;
  for (const auto& up : branches_.back().ups()) all.push_back(up);
  return all;
}

std::vector<TrainedRows> InfLora::trained_rows() {
  auto rows = trained_.rows();
  rows.resize(parameters().size());
  return rows;
}

int64_t InfLora::frozen_parameters() {
  int64_t sum = 0;
  for (const Lora& branch : branches_) sum += branch.numel();
  if (!training_) return sum;
  for (const auto& up : branches_.back().ups()) sum -= up.numel();
  return sum;
}

torch::Tensor InfLora::loss(const Batch& batch) {
  ForwardPlan plan = efficiency_.train_plan(batch.images, batch.indices);
  plan.branches = branches();
  return Classifier::loss(head_.logits(backbone_->features(batch.images, plan)), batch.labels,
                          trained_.first, trained_.last);
}

torch::Tensor InfLora::predict(const Batch& batch) {
  ForwardPlan plan = efficiency_.test_plan();
  plan.branches = branches();
  return head_.logits(backbone_->features(batch.images, plan));
}

void InfLora::state(State& s) {
  const int64_t count = s.count("branches", branches_.size(), num_tasks_);
  s("training", training_);
  while (static_cast<int64_t>(branches_.size()) < count) branches_.push_back(new_branch());
  for (size_t i = 0; i < branches_.size(); ++i) {
    s.scope("branch." + std::to_string(i), [&](State& inner) { branches_[i].state(inner); });
  }
  for (size_t i = 0; i < memories_.size(); ++i) {
    s.scope("memory." + std::to_string(i), [&](State& inner) { memories_[i].state(inner); });
  }
  head_.state(s);
  trained_.state(s);
  if (!s.loading()) return;
  const size_t frozen = branches_.size() - (training_ ? 1 : 0);
  for (size_t i = 0; i < frozen; ++i) branches_[i].freeze();
  fold();
}

namespace {

const Registered<MethodKind> kInfLora{"inflora", "Liang and Li 2024, InfLoRA (arXiv 2404.00228)",
                                      method_kind<InfLora, InfLoraOptions>()};

}  // namespace

}  // namespace rep
