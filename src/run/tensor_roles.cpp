#include "run/tensor_roles.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace rep {
namespace {

struct Rule {
  const char* part;  // of a name, between dots, whatever the numbers in it
  const char* role;
  const char* meaning;
};

// The first one whose part a name has. Where a name has several parts, the outer one comes first.
const std::vector<Rule>& rules() {
  static const std::vector<Rule> kRules{
      {"buffer.pixels", "memory", "stored images, encoded as PNG, one after the other"},
      {"buffer", "memory", "of the stored images: sizes in bytes, labels, indices and logits"},
      {"to_come", "memory", "images of the task that have not been offered to the buffer yet"},
      {"previous_solver", "memory", "the network before the task, which labels replayed images"},
      {"previous", "memory", "the model before the task, which it is distilled from or replays"},
      {"teacher", "memory", "the network before the task, which it is distilled from"},
      {"importance", "memory", "how much each parameter matters for earlier tasks"},
      {"anchor", "memory", "the parameters that the penalty pulls to"},
      {"task_start", "memory", "the parameters when the task began"},
      {"path_integral", "memory", "what each parameter did for the loss in the task"},
      {"head_before_alignment", "memory", "the head before its alignment, from which it trains on"},
      {"shared_before", "memory", "the shared parameters when the task began"},
      {"memory", "memory", "what spans the inputs of earlier tasks, which later ones leave alone"},
      {"gram", "statistics", "sum over images of h h^T, of the features h that the head reads"},
      {"prototypes", "statistics", "sum over images of h by class, of the features h"},
      {"gaussian_mean", "statistics", "mean feature of each class"},
      {"gaussian_factor", "statistics", "Cholesky factor of each class's covariance"},
      {"covariance", "statistics", "covariance of features, common to the classes"},
      {"factor", "statistics", "factor of each class's covariance"},
      {"scatter", "statistics", "sum of squared deviations of features from class means"},
      {"known", "statistics", "whether each class has been seen"},
      {"count", "statistics", "images seen of each class"},
      {"prototype", "statistics", "mean feature of each class, adapter by adapter"},
      {"plain_prototype", "statistics", "mean feature of each class without adapters"},
      {"mean", "statistics", "mean feature of each class"},
      {"means", "statistics", "mean feature of each class's stored images"},
      {"variance", "statistics", "variance of features about each mean"},
      {"feature_mean", "statistics", "mean of features, which inputs are reduced by"},
      {"feature_std", "statistics", "deviation of features, which inputs are divided by"},
      {"task_of_class", "statistics", "index of the task that each class came with"},
      {"backbone", "network", "parameter or buffer of the backbone that the method trained"},
      {"column", "network", "a task's own layers (Progressive Networks)"},
      {"adapter", "adapter", "adapter beside a block's MLP: x + up(relu(down(x)))"},
      {"branch", "lora", "LoRA of a block's projection: W + up down"},
      {"magnitude", "lora", "factor on each direction up down"},
      {"prompt", "prompt", "prompt tokens"},
      {"g_prompt", "prompt", "general prompt, of all tasks"},
      {"e_prompt", "prompt", "expert prompts, one a task"},
      {"merged_prompt", "prompt", "prompts of the tasks so far, merged"},
      {"embedding", "prompt", "what the prompt generator's kernels are convolved with"},
      {"kernel", "prompt", "convolution kernels that make prompts"},
      {"projection", "prompt", "projection of the image's tokens for the choice of kernels"},
      {"prompt_key", "key", "keys that a query selects prompts by"},
      {"keys", "key", "keys that a query selects prompts by"},
      {"attention", "key", "attention on a query's dimensions, a vector a prompt"},
      {"generator", "generator", "variational autoencoder of the images seen"},
      {"vae", "generator", "variational autoencoder of the features seen, with the classifier"},
      {"hidden", "head", "hidden layer between feature and classifier"},
      {"mlp", "head", "hidden layer between feature and classifier"},
      {"head", "head", "classifier: a row a class, in the order of classes"},
      {"norm", "head", "layer norm before the classifier"},
      {"scale", "head", "scale of the cosine classifier"},
      {"weight", "head", "classifier: a row or column a class, in the order of classes"}};
  return kRules;
}

/// ".set.adapter.down.weight." of "set.0.adapter.3.down.weight".
std::string without_numbers(const std::string& name) {
  std::string parts = ".", part;
  const auto end_part = [&] {
    const bool number =
        std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    if (!number) parts += part + ".";
    part.clear();
  };
  for (const char c : name) {
    if (c == '.') {
      end_part();
    } else {
      part += c;
    }
  }
  end_part();
  return parts;
}

}  // namespace

std::optional<TensorRole> role_of(const std::string& name) {
  const std::string parts = without_numbers(name);
  for (const Rule& rule : rules()) {
    if (parts.find("." + std::string(rule.part) + ".") != std::string::npos) {
      return TensorRole{rule.role, rule.meaning};
    }
  }
  return std::nullopt;
}

}  // namespace rep
