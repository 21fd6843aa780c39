#include "cli/print_model.h"

#include <algorithm>
#include <cstddef>
#include <iomanip>
#include <iostream>
#include <vector>

#include "cli/human.h"
#include "core/error.h"
#include "run/export.h"

namespace rep {
namespace {

constexpr size_t kMaxClasses = 20;  // that are named

void line(const std::string& what, const std::string& text) {
  std::cout << std::left << std::setw(15) << what << text << "\n";
}

// "vit_nano, 32 x 32 pixels, weights weights/a.safetensors (sha256 0123456789...)"
std::string describe_backbone(const Json& backbone) {
  const std::string side = plain(backbone.at("image_size"));
  const Json& weights = backbone.at("weights");
  std::string text = plain(backbone.at("name")) + ", " + side + " x " + side + " pixels, weights " +
                     plain(weights.value("path", Json("")));
  if (weights.contains("sha256")) text += " (sha256 " + plain(weights["sha256"]) + ")";
  return text;
}

std::string options_of(const Json& method) {
  std::string text;
  for (const auto& [key, value] : method.items()) {
    if (key != "name") text += (text.empty() ? "" : ", ") + plain(key) + " " + plain(value);
  }
  return text;
}

std::string names_of(const Json& classes) {
  std::string text = std::to_string(classes.size());
  for (size_t i = 0; i < std::min(kMaxClasses, classes.size()); ++i) {
    text += (i == 0 ? ": " : ", ") + plain(classes[i].at("name"));
  }
  return text + (classes.size() > kMaxClasses ? ", ..." : "");
}

void print_tensors(const Json& tensors) {
  std::vector<std::vector<std::string>> rows{{"tensor", "role", "dtype", "shape", "meaning"}};
  for (const auto& [name, tensor] : tensors.items()) {
    rows.push_back({plain(name), plain(tensor.at("role")), plain(tensor.at("dtype")),
                    plain(tensor.at("shape")), plain(tensor.at("meaning"))});
  }
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  for (const auto& row : rows) {
    for (size_t c = 0; c + 1 < row.size(); ++c) {
      std::cout << std::left << std::setw(static_cast<int>(widths[c]) + 2) << row[c];
    }
    std::cout << row.back() << "\n";
  }
}

void print(const Json& model) {
  line("name", plain(model.at("name")));
  line("method", plain(model.at("method").at("name")) + " (" + plain(model.at("source")) + ")");
  line("options", options_of(model["method"]));
  const Json& learnt = model.at("learnt");
  line("learnt", plain(learnt.at("tasks")) + " tasks" +
                     (learnt.at("run_complete") == true ? "" : "; the run is not complete"));
  line("classes", names_of(model.at("classes")));
  line("backbone", describe_backbone(model.at("backbone")));
  if (model.contains("query_backbone")) {
    line("query", describe_backbone(model["query_backbone"]));
  }
  const Json& images = model.at("preprocessing");
  line("images", plain(images.at("view")));
  line("pixels", plain(images.at("colour")) + ", (p / 255 - mean) / std, mean " +
                     plain(images.at("mean")) + ", std " + plain(images.at("std")));
  std::cout << "\n";
  print_tensors(model.at("tensors"));
  std::cout << "\n"
            << grouped(static_cast<int64_t>(model["tensors"].size())) << " tensors, "
            << grouped(model.at("bytes").get<int64_t>()) << " bytes in " << plain(model.at("file"))
            << "\n";
  for (const auto& [name, left] : model.at("left_out").items()) {
    std::cout << "left out: " << plain(name) << ", " << plain(left.at("meaning")) << " ("
              << grouped(left.at("bytes").get<int64_t>()) << " bytes)\n";
  }
}

}  // namespace

bool is_model(const Json& json) { return json.value("format", Json()) == kExportFormat; }

void print_model(const Json& model, const std::string& path) {
  try {
    print(model);
  } catch (const Json::exception& error) {
    throw Error(path + ": is not whole, as rep export writes it (" + error.what() + ")");
  }
}

}  // namespace rep
