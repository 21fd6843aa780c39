#include "nn/step_planner.h"

#include <algorithm>

#include "core/error.h"
#include "nn/patch_sampling.h"
#include "nn/token_merging.h"

namespace rep {

StepPlanner::StepPlanner(const EfficiencyConfig& config, const Backbone& backbone)
    : merging_(config.token_merging), dropping_(config.layer_dropping) {
  if (const auto* vit = dynamic_cast<const VisionTransformerImpl*>(&backbone)) {
    vit_ = vit->options;
    merge_ = merging_schedule(merging_, vit_->depth);
    check_dropping(dropping_, vit_->depth);
  } else if (changes_training() || !config.query_backbone.name.empty()) {
    throw Error(
        "efficiency: queries, token merging and layer dropping are defined for vision "
        "transformers; take a vit_ backbone or leave efficiency out");
  }
}

ForwardPlan StepPlanner::merging_plan() const {
  ForwardPlan plan;
  if (!vit_) return plan;
  plan.merge = merge_;
  plan.proportional_attention = merging_.proportional_attention;
  plan.size_weighted = merging_.size_weighted;
  return plan;
}

ForwardPlan StepPlanner::train_plan(const StepTime& time) const {
  ForwardPlan plan = merging_plan();
  if (!vit_) return plan;
  const double threshold = drop_threshold(dropping_, merging_);
  const Drops drops =
      draw_drops(dropping_, merge_, vit_->num_patches(), time, threshold, prompted_);
  (dropping_.backward_only ? plan.detach : plan.skip) = drops.skip;
  if (dropping_.kind != "none" && dropping_.rescale) {
    for (size_t i = 0; i < drops.keep.size(); ++i) {
      plan.scale.push_back(drops.skip[i] ? 1 : 1 / drops.keep[i]);
    }
  }
  return plan;
}

void StepPlanner::set_prompted_blocks(const std::vector<int64_t>& blocks) {
  if (!vit_) return;
  prompted_.assign(static_cast<size_t>(vit_->depth), false);
  for (const int64_t block : blocks) prompted_.at(static_cast<size_t>(block)) = true;
}

void StepPlanner::check_prompted_blocks(const std::string& method) const {
  const bool asked = dropping_.kind != "none" && dropping_.exempt_prompted;
  if (asked && std::find(prompted_.begin(), prompted_.end(), true) == prompted_.end()) {
    throw Error("efficiency.layer_dropping.exempt_prompted: " + method +
                " puts no prompts of their own into blocks; set it to false, or take exempt_first");
  }
  if (asked && std::all_of(prompted_.begin() + dropping_.exempt_first, prompted_.end(),
                           [](bool has_prompts) { return has_prompts; })) {
    throw Error("efficiency.layer_dropping.exempt_prompted: " + method +
                " puts prompts into every block that could be dropped, so that none would be; set "
                "it to false, or name fewer blocks as method.layers");
  }
}

ForwardPlan StepPlanner::test_plan() const {
  return merging_.when == "always" ? merging_plan() : ForwardPlan{};
}

bool StepPlanner::changes_training() const {
  return merging_.kind != "none" || dropping_.kind != "none";
}

bool StepPlanner::changes_testing() const {
  return merging_.kind != "none" && merging_.when == "always";
}

BlockTokens StepPlanner::train_tokens(const StepTime& time, int64_t prompts) const {
  if (!vit_) return {};
  const ForwardPlan plan = train_plan(time);
  BlockTokens tokens;
  tokens.forward = tokens.backward =
      tokens_per_block(*vit_, plan, prompts, kept_patches(merging_, vit_->num_patches()));
  for (int64_t block = 0; block < vit_->depth; ++block) {
    if (plan.detaches(block)) tokens.backward[static_cast<size_t>(block)] = 0;
  }
  return tokens;
}

BlockTokens StepPlanner::head_tokens(int64_t prompts) const {
  if (!vit_) return {};
  BlockTokens tokens;
  tokens.forward = tokens_per_block(*vit_, test_plan(), prompts);
  tokens.backward.assign(tokens.forward.size(), 0);
  return tokens;
}

namespace {

void add_each(std::vector<int64_t>& to, const std::vector<int64_t>& more) {
  to.resize(std::max(to.size(), more.size()));
  for (size_t i = 0; i < more.size(); ++i) to[i] += more[i];
}

// 1 where there are tokens.
std::vector<int64_t> executions_of(std::vector<int64_t> tokens) {
  for (int64_t& n : tokens) n = n > 0 ? 1 : 0;
  return tokens;
}

}  // namespace

void StepLog::add(const BlockTokens& step) {
  ++steps;
  add_each(tokens, step.forward);
  add_each(executions, executions_of(step.forward));
  add_each(backward_tokens, step.backward);
  add_each(backward_executions, executions_of(step.backward));
}

StepLog& StepLog::operator+=(const StepLog& other) {
  steps += other.steps;
  add_each(tokens, other.tokens);
  add_each(executions, other.executions);
  add_each(backward_tokens, other.backward_tokens);
  add_each(backward_executions, other.backward_executions);
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

}  // namespace rep
