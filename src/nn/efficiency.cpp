#include "nn/efficiency.h"

#include <algorithm>
#include <cmath>

#include "nn/token_merging.h"
#include "tensor/device.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

StepLog& StepLog::operator+=(const StepLog& other) {
  steps += other.steps;
  const auto add = [](std::vector<int64_t>& to, const std::vector<int64_t>& more) {
    to.resize(std::max(to.size(), more.size()));
    for (size_t i = 0; i < more.size(); ++i) to[i] += more[i];
  };
  add(tokens, other.tokens);
  add(executions, other.executions);
  add(backward_tokens, other.backward_tokens);
  add(backward_executions, other.backward_executions);
  return *this;
}

void StepLog::state(State& s) {
  Json json{{"steps", steps},
            {"tokens", tokens},
            {"executions", executions},
            {"backward_tokens", backward_tokens},
            {"backward_executions", backward_executions}};
  s("step_log", json);
  steps = json.at("steps");
  json.at("tokens").get_to(tokens);
  json.at("executions").get_to(executions);
  json.at("backward_tokens").get_to(backward_tokens);
  json.at("backward_executions").get_to(backward_executions);
}

Efficiency::Efficiency(const EfficiencyConfig& config, std::shared_ptr<Backbone> backbone,
                       VisionTransformer query_backbone, int64_t seed)
    : config_(config), backbone_(std::move(backbone)), query_backbone_(std::move(query_backbone)) {
  if (const auto* vit = dynamic_cast<const VisionTransformerImpl*>(backbone_.get())) {
    vit_ = vit->options;
    merge_ = merging_schedule(config.token_merging, vit_->depth);
    check_dropping(config.layer_dropping, vit_->depth);
  } else if (config.token_merging.kind != "none" || config.layer_dropping.kind != "none" ||
             !query_backbone_.is_empty()) {
    throw Error(
        "efficiency: queries, token merging and layer dropping are defined for vision "
        "transformers; take a vit_ backbone or leave efficiency out");
  }
  clear_log();
  if (query_backbone_.is_empty()) return;
  const int64_t d = query_backbone_->feature_dim(), D = backbone_->feature_dim();
  if (d == D) return;
  auto generator = make_generator(seed, RandomUse::kQueryProjection);
  projection_ = torch::randn({d, D}, generator).div_(std::sqrt(static_cast<double>(d)));
  projection_ = projection_.to(backbone_->parameters().front().device());
}

torch::Tensor Efficiency::query(const torch::Tensor& images) {
  const PhaseScope phase(Phase::kSelect);
  torch::NoGradGuard no_grad;
  if (query_backbone_.is_empty()) return backbone_->features(images);
  const torch::Tensor features = query_backbone_->features(images);
  return projection_.defined() ? torch::mm(features, projection_) : features;
}

Efficiency::Memory Efficiency::make_memory(int64_t images) const {
  return {torch::zeros({images, backbone_->feature_dim()}), torch::zeros({images}, torch::kBool)};
}

torch::Tensor Efficiency::remembered(Memory& memory, const torch::Tensor& images,
                                     const torch::Tensor& indices) {
  // Images from elsewhere (a buffer's) have positions behind the data set's.
  const bool room = memory.known.defined() && indices.numel() > 0 &&
                    indices.max().item<int64_t>() < memory.known.size(0);
  if (!room) return query(images);
  const torch::Tensor rows =
      memory.known.index_select(0, indices).logical_not().nonzero().squeeze(1);
  if (rows.numel() > 0) {
    const bool all = rows.numel() == indices.numel();
    const torch::Tensor fresh = all ? images : images.index_select(0, rows.to(images.device()));
    const torch::Tensor positions = indices.index_select(0, rows);
    memory.queries.index_copy_(0, positions, query(fresh).cpu());
    memory.known.index_fill_(0, positions, true);
  }
  return memory.queries.index_select(0, indices).to(images.device());
}

ForwardPlan Efficiency::train_plan(int64_t prompts) {
  ForwardPlan plan;
  const bool first = !logged_;
  if (first) ++log_.steps;
  logged_ = true;
  if (!vit_) return plan;
  plan.merge = merge_;
  plan.proportional_attention = config_.token_merging.proportional_attention;
  plan.size_weighted = config_.token_merging.size_weighted;
  const LayerDroppingConfig& dropping = config_.layer_dropping;
  const Drops drops = draw_drops(dropping, merge_, vit_->num_patches(), time_,
                                 drop_threshold(dropping, config_.token_merging), prompted_);
  (dropping.backward_only ? plan.detach : plan.skip) = drops.skip;
  if (dropping.kind != "none" && dropping.rescale) {
    for (size_t i = 0; i < drops.keep.size(); ++i) {
      plan.scale.push_back(drops.skip[i] ? 1 : 1 / drops.keep[i]);
    }
  }
  if (first) enter(plan, prompts);
  return plan;
}

void Efficiency::enter(const ForwardPlan& plan, int64_t prompts) {
  const auto tokens = tokens_per_block(*vit_, plan, prompts);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto block = static_cast<int64_t>(i);
    log_.tokens[i] += tokens[i];
    log_.executions[i] += plan.skips(block) ? 0 : 1;
    if (plan.skips(block) || plan.detaches(block)) continue;
    log_.backward_tokens[i] += tokens[i];
    ++log_.backward_executions[i];
  }
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

void Efficiency::set_prompted_blocks(const std::vector<int64_t>& blocks) {
  if (!vit_) return;
  prompted_.assign(static_cast<size_t>(vit_->depth), false);
  for (const int64_t block : blocks) prompted_.at(static_cast<size_t>(block)) = true;
}

void Efficiency::check_prompted_blocks(const std::string& method) const {
  const bool asked =
      config_.layer_dropping.kind != "none" && config_.layer_dropping.exempt_prompted;
  if (asked && std::find(prompted_.begin(), prompted_.end(), true) == prompted_.end()) {
    throw Error("efficiency.layer_dropping.exempt_prompted: " + method +
                " puts no prompts of their own into blocks; set it to false, or take exempt_first");
  }
}

bool Efficiency::changes_training() const {
  return config_.token_merging.kind != "none" || config_.layer_dropping.kind != "none";
}

void Efficiency::clear_log() {
  const auto depth = static_cast<size_t>(vit_ ? vit_->depth : 0);
  const std::vector<int64_t> zeros(depth, 0);
  log_ = {0, zeros, zeros, zeros, zeros};
}

void Efficiency::state(State& s) {
  if (projection_.defined()) s("projection", projection_);
}

void Efficiency::bookkeeping(State& s) {
  log_.state(s);
  s.on_cpu("test_queries", test_.queries);
  s.on_cpu("test_known", test_.known);
  if (!remembers_train_queries()) return;
  s.on_cpu("train_queries", train_.queries);
  s.on_cpu("train_known", train_.known);
}

}  // namespace rep
