#include "run/export.h"

#include <charconv>
#include <filesystem>
#include <set>

#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "data/augment.h"
#include "formats/safetensors.h"
#include "methods/method.h"
#include "nn/backbone.h"
#include "run/tensor_roles.h"
#include "tensor/checkpoint.h"
#include "tensor/torch.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

// Names of a checkpoint (run/run_folder.cpp).
const std::string kMethodPrefix = "learner.method.",
                  kQueryProjection = "learner.efficiency.projection";

std::string checkpoint_of(const std::string& run) {
  std::error_code ignored;
  if (!fs::is_directory(run, ignored)) return run;
  std::string path = run + "/checkpoint/state.safetensors";
  if (fs::exists(path, ignored)) return path;
  throw Error(run +
              ": holds no checkpoint (checkpoint/state.safetensors); name the folder of a run");
}

// Throws Error unless it can be made or is empty.
void make_empty_folder(const std::string& path) {
  std::error_code ignored;
  if (fs::exists(path, ignored) && !fs::is_empty(path, ignored)) {
    throw Error(path + ": is there and not empty; choose another --output");
  }
  make_directories(path);
}

Json bytes_of(const torch::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

Json describe_tensor(const torch::Tensor& tensor, const TensorRole& role) {
  return {{"role", role.role},
          {"meaning", role.meaning},
          {"dtype", dtype_name(tensor.scalar_type())},
          {"shape", tensor.sizes().vec()},
          {"bytes", bytes_of(tensor)}};
}

TensorRole role_or_other(const std::string& name) {
  return role_of(name).value_or(TensorRole{"other", "part of the method's state"});
}

// The classes in the order of logits, as far as tasks have shown them.
Json classes_of(const Json& tasks, const Json& confusion) {
  Json classes = Json::array();
  std::set<int64_t> there;
  const auto add = [&](const Json& id, const Json& name, const Json& task) {
    if (!there.insert(id.get<int64_t>()).second) return;
    classes.push_back({{"label", classes.size()}, {"name", name}, {"class", id}, {"task", task}});
  };
  if (!confusion.is_null()) {
    for (const Json& line : confusion.at("classes")) {
      add(line.at("class"), line.at("name"), line.at("task"));
    }
  }
  for (const Json& task : tasks) {
    for (size_t i = 0; i < task.at("classes").size(); ++i) {
      add(task["classes"][i], task.at("class_names").at(i), task.at("index"));
    }
  }
  return classes;
}

Json describe_backbone(const std::string& name, const Json& config, const Json& input,
                       int64_t image_size) {
  Json backbone{{"name", name}, {"weights", input}, {"image_size", image_size}};
  for (const char* key : {"patch_size", "width", "stem", "positions", "feature", "trainable"}) {
    if (config.contains(key)) backbone[key] = config[key];
  }
  return backbone;
}

// As short as they can be written: 0.485, not 0.48500001430511475.
Json numbers_of(const float (&values)[3]) {
  Json numbers = Json::array();
  for (const float value : values) {
    char text[32];
    const auto end = std::to_chars(std::begin(text), std::end(text), value).ptr;
    numbers.push_back(Json::parse(std::string(text, end)));
  }
  return numbers;
}

Json preprocessing_of(const Config& config, int64_t image_size) {
  const Normalisation norm = normalisation(config.backbone.normalise);
  return {{"colour", "RGB"},
          {"view", describe_test_view(config.train.augment, image_size)},
          {"image_size", image_size},
          {"normalise", config.backbone.normalise},
          {"mean", numbers_of(norm.mean)},
          {"std", numbers_of(norm.std)},
          {"input", "float32 [images, 3, image_size, image_size]: (pixel / 255 - mean) / std"}};
}

// What model.json says besides the tensors.
Json describe_run(const Json& values) {
  const Json& head = values.at("result.head");
  const Json& tasks = values.at("result.tasks");
  const Json& settings = head.at("config");
  const Config config = parse_config(to_text(settings), "the checkpoint's configuration");
  const int64_t image_size = family_of(config.backbone.name).image_size(config.backbone);
  const std::string& method = config.method.name;
  const bool within_task = values.value("position.iteration", int64_t{0}) > 0 &&
                           !values.value("position.trained", false);
  Json model{
      {"format", kExportFormat},
      {"version", 1},
      {"name", head.at("name")},
      {"rep", head.at("rep")},
      {"method", settings.at("method")},
      {"source", Registry<MethodKind>::get().at(method).citation},
      {"learnt",
       {{"tasks", static_cast<int64_t>(tasks.size()) - (within_task ? 1 : 0)},
        {"steps_of_an_unfinished_task", within_task ? values.at("position.iteration") : Json(0)},
        {"run_complete", values.value("result.complete", false)}}},
      {"backbone", describe_backbone(config.backbone.name, settings.at("backbone"),
                                     head.at("inputs").at("weights"), image_size)}};
  if (const QueryBackboneConfig& query = config.efficiency.query_backbone; !query.name.empty()) {
    model["query_backbone"] = describe_backbone(query.name, Json::object(),
                                                head["inputs"].at("query_weights"), image_size);
  }
  model["preprocessing"] = preprocessing_of(config, image_size);
  model["classes"] = classes_of(tasks, values.at("result.accuracy").value("confusion", Json()));
  model["efficiency"] = settings.at("efficiency");
  model["seed"] = settings.at("seed");
  model["identity"] = head.at("identity");
  return model;
}

// The tensors to write; what is written and what is not goes into `model`.
NamedTensors choose_tensors(const NamedTensors& checkpoint, bool with_memory, Json& model) {
  NamedTensors chosen;
  Json written = Json::object(), left_out = Json::object();
  int64_t bytes = 0, other_bytes = 0;
  for (const auto& [full, tensor] : checkpoint) {
    const bool projection = full == kQueryProjection;
    if (!projection && full.rfind(kMethodPrefix, 0) != 0) {
      other_bytes += static_cast<int64_t>(tensor.nbytes());
      continue;
    }
    const std::string name = projection ? "query.projection" : full.substr(kMethodPrefix.size());
    const TensorRole role =
        projection ? TensorRole{"key", "from the query backbone's feature to the query"}
                   : role_or_other(name);
    if (role.is_memory() && !with_memory) {
      left_out[name] = {{"meaning", role.meaning}, {"bytes", bytes_of(tensor)}};
      continue;
    }
    written[name] = describe_tensor(tensor, role);
    bytes += static_cast<int64_t>(tensor.nbytes());
    chosen.emplace_back(name, tensor);
  }
  model["file"] = kLearnedFile;
  model["bytes"] = bytes;
  model["tensors"] = std::move(written);
  left_out["optimizer, query caches, random numbers"] = {
      {"meaning", "of the checkpoint, of no use to a finished model"}, {"bytes", other_bytes}};
  model["left_out"] = std::move(left_out);
  return chosen;
}

// Numbers of the method's state that are no tensors.
Json values_of_method(const Json& values) {
  Json own = Json::object();
  for (const auto& [name, value] : values.items()) {
    if (name.rfind(kMethodPrefix, 0) == 0) own[name.substr(kMethodPrefix.size())] = value;
  }
  return own;
}

}  // namespace

Json export_model(const ExportOptions& options) {
  const std::string checkpoint = checkpoint_of(options.run);
  const State state = read_checkpoint(checkpoint, torch::kCPU);
  Json model;
  try {
    model = describe_run(state.values());
  } catch (const Json::exception& error) {
    throw Error(checkpoint + ": is not a checkpoint of rep run (" + error.what() + ")");
  }
  const NamedTensors tensors = choose_tensors(state.tensors(), options.with_memory, model);
  model["values"] = values_of_method(state.values());
  make_empty_folder(options.output);
  // The description last: a folder that has it is whole.
  write_safetensors(options.output + "/" + kLearnedFile, tensors,
                    {{"format", kExportFormat}, {"described_by", kModelFile}});
  write_file_atomically(options.output + "/" + kModelFile, to_text(model, 1) + "\n");
  return model;
}

}  // namespace rep
