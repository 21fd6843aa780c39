#include "nn/efficiency.h"

#include <utility>

#include "core/error.h"
#include "nn/patch_sampling.h"
#include "tensor/torch.h"

namespace rep {

Efficiency::Efficiency(const EfficiencyConfig& config, std::shared_ptr<Backbone> backbone,
                       VisionTransformer query_backbone, int64_t seed)
    : planner(config, *backbone),
      queries(backbone, std::move(query_backbone), seed),
      merging_(config.token_merging) {
  if (!samples_patches(merging_)) return;
  patches_ = dynamic_cast<const VisionTransformerImpl&>(*backbone).options.num_patches();
  const std::string key = "efficiency.token_merging.";
  if (merging_.when == "always") {
    throw Error(key + "when: " + merging_.kind +
                " leaves patches out in training only; set it to train");
  }
  if (kept_patches(merging_, patches_) < 1) {
    throw Error(key + "ratio: none of the " + std::to_string(patches_) +
                " patches would be left; make it smaller");
  }
  if (scores_patches()) queries.score_patches(merging_.score == "attention_value", patches_);
}

bool Efficiency::scores_patches() const { return needs_patch_scores(merging_); }

// Where the step's plan wants scores, its query pass is made for them and for the method at once.
QueryAnswer Efficiency::answer(const torch::Tensor& images, const torch::Tensor& indices) {
  if (!scores_patches()) return queries.train_answer(images, indices);
  if (!step_.images.is_same(images)) step_ = {images, queries.train_answer(images, indices)};
  return step_.answer;
}

void Efficiency::expect_no_query(const std::string& name) const {
  if (query_is_feature() || scores_patches()) return;
  throw Error("efficiency.query_backbone: " + name +
              ", with these options, makes no query; leave it out");
}

ForwardPlan Efficiency::train_plan(const torch::Tensor& images, const torch::Tensor& indices) {
  if (head_only_) return planner.test_plan();
  ForwardPlan plan = planner.train_plan(time_);
  if (!samples_patches(merging_)) return plan;
  const torch::Tensor uniforms =
      uniforms_ ? uniforms_(time_, indices, patches_) : patch_uniforms(time_, indices, patches_);
  const torch::Tensor scores =
      scores_patches() ? answer(images, indices).patch_scores : torch::Tensor();
  plan.kept_patches = pick_patches(merging_, scores, uniforms).to(images.device());
  return plan;
}

ForwardPlan Efficiency::train_plan() const {
  if (head_only_) return planner.test_plan();
  if (samples_patches(merging_)) {
    throw Error("efficiency.token_merging.kind: " + merging_.kind +
                " does not fit this method, which trains on whole images; take atom or tome");
  }
  return planner.train_plan(time_);
}

}  // namespace rep
