// rep inspect: what is in a weight file, a checkpoint, a result or an exported model.
#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/human.h"
#include "cli/print_model.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/json_file.h"
#include "core/suggest.h"
#include "formats/safetensors.h"
#include "formats/weight_file.h"
#include "nn/weight_names.h"
#include "nn/weights.h"
#include "run/export.h"

namespace rep {
namespace {

void print_json(const Json& json) {
  std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

// Every scalar below `json`, an indented line each; lists are left out.
void print_scalars(const Json& json, int indent) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_array()) continue;
    std::cout << std::string(static_cast<size_t>(indent), ' ') << plain(key);
    if (value.is_object()) {
      std::cout << "\n";
      print_scalars(value, indent + 2);
    } else {
      std::cout << ": " << plain(value) << "\n";
    }
  }
}

Json object_in(Json json, const std::string& path) {
  if (json.is_object()) return json;
  throw Error(path + ": not a JSON object, as rep's results are");
}

// ---- weights and checkpoints ----

struct Inspected {
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
  std::string note;
  VitLayout layout;
};

VitLayout layout_of(const std::vector<TensorInfo>& tensors) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  for (const TensorInfo& tensor : tensors) shapes.emplace_back(tensor.name, tensor.shape);
  return vit_layout(shapes);
}

std::vector<TensorInfo> infos(const NamedTensors& tensors) {
  std::vector<TensorInfo> list;
  for (const auto& [name, tensor] : tensors) {
    list.push_back({name, dtype_name(tensor.scalar_type()), tensor.sizes().vec()});
  }
  return list;
}

// What it fits is told by timm's names; a file of several models fits none.
VitLayout layout_by_timm_names(const NamedTensors& tensors, const std::string& path) {
  try {
    return layout_of(infos(to_timm_names(tensors, path).tensors));
  } catch (const Error&) {
    return {};
  }
}

Inspected read_tensors(const std::string& path, const std::string& key) {
  Inspected file;
  if (weight_format(path) == WeightFormat::kSafetensors && key.empty()) {
    file.tensors = list_safetensors(path, &file.metadata);  // without the data
    NamedTensors shapes;
    for (const TensorInfo& info : file.tensors) {
      shapes.emplace_back(info.name, torch::empty(info.shape, torch::kMeta));
    }
    file.layout = layout_by_timm_names(shapes, path);
    return file;
  }
  WeightFile read = read_weight_file(path, key);
  file.tensors = infos(read.tensors);  // under the names of the file
  file.metadata = std::move(read.metadata);
  file.note = std::move(read.note);
  file.layout = layout_by_timm_names(read.tensors, path);
  return file;
}

// What the checkpoint's values (tensor/checkpoint.h) say of how far the run had come.
Json position_of(const Inspected& file, const std::string& path) {
  const auto values = file.metadata.find("rep");
  if (values == file.metadata.end()) return nullptr;
  const std::string prefix = "position.";
  Json position = Json::object();
  const Json all = object_in(parse_json(values->second, path), path);  // items() refers to it
  for (const auto& [key, value] : all.items()) {
    if (key.compare(0, prefix.size(), prefix) == 0) position[key.substr(prefix.size())] = value;
  }
  return position;
}

Json summarise_weights(const Inspected& file, const std::string& path) {
  Json list = Json::array();
  int64_t parameters = 0, bytes = 0;
  for (const TensorInfo& tensor : file.tensors) {
    int64_t items = 1;
    for (const int64_t size : tensor.shape) items *= size;
    parameters += items;
    bytes += items * static_cast<int64_t>(c10::elementSize(*dtype_of(tensor.dtype)));
    list.push_back({{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}});
  }
  Json json{{"tensors", std::move(list)}, {"count", file.tensors.size()},
            {"parameters", parameters},   {"bytes", bytes},
            {"metadata", file.metadata},  {"backbones", backbones_of_layout(file.layout)}};
  Json position = position_of(file, path);
  if (!position.is_null()) {
    json["metadata"].erase("rep");
    json["position"] = std::move(position);
  }
  return json;
}

void print_weights(const Inspected& file, const Json& summary) {
  size_t width = 4;
  for (const TensorInfo& tensor : file.tensors) width = std::max(width, plain(tensor.name).size());
  const auto row = [&](const std::string& name, const std::string& dtype,
                       const std::string& shape) {
    std::cout << std::left << std::setw(static_cast<int>(width) + 2) << name << std::setw(6)
              << dtype << shape << "\n";
  };
  row("name", "dtype", "shape");
  for (const TensorInfo& tensor : file.tensors) {
    row(plain(tensor.name), tensor.dtype, describe(tensor.shape));
  }
  if (!file.note.empty()) std::cout << "\n" << plain(file.note) << "\n";
  std::cout << "\n"
            << grouped(summary["count"]) << " tensors, " << grouped(summary["parameters"])
            << " parameters, " << grouped(summary["bytes"]) << " bytes\n";
  for (const auto& [key, value] : summary["metadata"].items()) {
    std::cout << plain(key) << ": " << plain(value) << "\n";
  }
  if (summary.contains("position")) {
    std::cout << "a checkpoint of rep at\n";
    print_scalars(summary["position"], 2);
  } else {
    const auto fits = summary["backbones"].get<std::vector<std::string>>();
    std::cout << "fits backbone: " << (fits.empty() ? "none that is registered" : join(fits))
              << "\n";
  }
}

// ---- results ----

// The parts of a result that are short enough to read.
Json summarise_result(const Json& result, const std::string& path) {
  Json summary = Json::object();
  for (const char* key : {"name", "complete", "metrics"}) {
    if (!result.contains(key)) {
      throw Error(absolute_path(path) + ": not a result of rep: '" + key + "' is missing");
    }
    summary[key] = result[key];
  }
  const Json cost = result.value("cost", Json::object());
  for (const char* key : {"total", "per_iteration", "state_bytes", "parameters"}) {
    if (cost.is_object() && cost.contains(key)) summary["cost"][key] = cost[key];
  }
  return summary;
}

struct InspectArguments {
  std::string file, key;
  bool json = false;
};

void inspect(const InspectArguments& arguments) {
  std::filesystem::path path = arguments.file;
  if (std::filesystem::is_directory(path)) {  // rep export's, or a run's
    const bool exported = std::filesystem::exists(path / kModelFile);
    path /= exported ? kModelFile : "result.json";
  }
  const std::string file_name = path.string(), suffix = path.extension().string();
  // An index of shards is a weight file.
  if (suffix == ".json" && path.stem().extension() != ".index") {
    const Json result = object_in(read_json_file(file_name), file_name);
    if (is_model(result)) {
      if (arguments.json) return print_json(result);
      return print_model(result, file_name);
    }
    const Json summary = summarise_result(result, file_name);
    if (arguments.json) {
      print_json(summary);
    } else {
      print_scalars(summary, 0);
    }
    return;
  }
  const Inspected file = read_tensors(file_name, arguments.key);
  const Json summary = summarise_weights(file, file_name);
  if (arguments.json) {
    print_json(summary);
  } else {
    print_weights(file, summary);
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  const auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand(
      "inspect",
      "Tensors of a weight file or checkpoint, or the summary of a result or an exported model");
  command
      ->add_option(
          "file", arguments->file,
          "Weights or checkpoint (safetensors, npz, PyTorch's, an index of shards), result.json, "
          "a run's folder, or what rep export wrote")
      ->required();
  command
      ->add_option("--key", arguments->key,
                   "Only this part of a checkpoint, as backbone.weights_key names it")
      ->type_name("KEY");
  command->add_flag("--json", arguments->json, "Print JSON");
  command->footer("Example: rep inspect weights/vit_tiny.safetensors");
  command->callback([arguments] { inspect(*arguments); });
}

}  // namespace rep
