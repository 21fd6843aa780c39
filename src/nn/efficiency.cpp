#include "nn/efficiency.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "nn/token_merging.h"
#include "tensor/meter.h"

namespace rep {

StepLog& StepLog::operator+=(const StepLog& other) {
  steps += other.steps;
  tokens.resize(std::max(tokens.size(), other.tokens.size()));
  executions.resize(tokens.size());
  for (size_t i = 0; i < other.tokens.size(); ++i) {
    tokens[i] += other.tokens[i];
    executions[i] += other.executions[i];
  }
  return *this;
}

void StepLog::state(State& s) {
  Json json{{"steps", steps}, {"tokens", tokens}, {"executions", executions}};
  s("step_log", json);
  steps = json.at("steps");
  tokens = json.at("tokens").get<std::vector<int64_t>>();
  executions = json.at("executions").get<std::vector<int64_t>>();
}

Efficiency::Efficiency(const EfficiencyConfig& config, VisionTransformer backbone,
                       VisionTransformer query_backbone, int64_t seed)
    : config_(config),
      backbone_(std::move(backbone)),
      query_backbone_(std::move(query_backbone)),
      merge_(merging_schedule(config.token_merging, backbone_->options.depth)) {
  clear_log();
  if (query_backbone_.is_empty()) return;
  const int64_t d = query_backbone_->options.embed_dim, D = backbone_->options.embed_dim;
  if (d == D) return;
  // A generator of its own, so that having a query model does not move any other random number.
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  projection_ = torch::randn({d, D}, generator).div_(std::sqrt(static_cast<double>(d)));
  projection_ = projection_.to(backbone_->pos_embed.device());
}

torch::Tensor Efficiency::query(const torch::Tensor& images) {
  const PhaseScope phase(Phase::kSelect);
  torch::NoGradGuard no_grad;
  if (query_backbone_.is_empty()) return backbone_->features(images);
  const torch::Tensor features = query_backbone_->features(images);
  return projection_.defined() ? torch::mm(features, projection_) : features;
}

void Efficiency::remember_test_queries(int64_t images) {
  test_queries_ = torch::zeros({images, backbone_->options.embed_dim});
  test_known_ = torch::zeros({images}, torch::kBool);
}

torch::Tensor Efficiency::test_query(const torch::Tensor& images, const torch::Tensor& indices) {
  if (!test_known_.defined()) return query(images);
  if (!test_known_.index_select(0, indices).all().item<bool>()) {
    test_queries_.index_copy_(0, indices, query(images).cpu());
    test_known_.index_fill_(0, indices, true);
  }
  return test_queries_.index_select(0, indices).to(images.device());
}

ForwardPlan Efficiency::train_plan(int64_t prompts) {
  ForwardPlan plan;
  plan.merge = merge_;
  plan.proportional_attention = config_.token_merging.proportional_attention;
  plan.size_weighted = config_.token_merging.size_weighted;
  const double threshold = drop_threshold(config_.layer_dropping, config_.token_merging);
  plan.skip =
      draw_drops(config_.layer_dropping, merge_, backbone_->options.num_patches(), time_, threshold)
          .skip;

  const auto tokens = tokens_per_block(backbone_->options, plan, prompts);
  ++log_.steps;
  for (size_t i = 0; i < tokens.size(); ++i) {
    log_.tokens[i] += tokens[i];
    log_.executions[i] += plan.skip[i] ? 0 : 1;
  }
  return plan;
}

ForwardPlan Efficiency::test_plan() const {
  ForwardPlan plan;
  if (config_.token_merging.when == "always") {
    plan.merge = merge_;
    plan.proportional_attention = config_.token_merging.proportional_attention;
    plan.size_weighted = config_.token_merging.size_weighted;
  }
  return plan;
}

void Efficiency::clear_log() {
  const auto depth = static_cast<size_t>(backbone_->options.depth);
  log_ = {0, std::vector<int64_t>(depth, 0), std::vector<int64_t>(depth, 0)};
}

void Efficiency::state(State& s) {
  if (projection_.defined()) s("projection", projection_);
}

void Efficiency::bookkeeping(State& s) {
  log_.state(s);
  s("test_queries", test_queries_);
  s("test_known", test_known_);
}

}  // namespace rep
