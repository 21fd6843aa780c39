#pragma once

#include <string>

#include "core/json.h"

namespace rep {

/// What `rep export` is asked for.
struct ExportOptions {
  std::string run;           // a run's folder, or a checkpoint
  std::string output;        // a folder that is not there yet, or empty
  bool with_memory = false;  // also what only further learning needs: stored images, old parameters
};

/// model.json of an exported folder says this of itself.
constexpr char kExportFormat[] = "rep model";
constexpr char kModelFile[] = "model.json";
constexpr char kLearnedFile[] = "learned.safetensors";

/// Writes OUTPUT/learned.safetensors, the tensors of the run's last checkpoint that prediction
/// needs, bit for bit, and OUTPUT/model.json, which says how to use them (docs/export.md). Neither
/// data nor weights are opened. Returns what model.json says. Throws Error, also when OUTPUT holds
/// anything.
Json export_model(const ExportOptions& options);

}  // namespace rep
