#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "run/finished_run.h"

namespace rep {

class Method;

/// The finished run that `rep learn` goes on with: the folder, and `overrides` of where its weights
/// are now. Throws Error.
FinishedRun read_run_to_continue(const std::string& path,
                                 const std::vector<std::string>& overrides);

/// The configuration under which `run` learns the class folders in `folder` as its next task: data
/// set `continued`, and a stream of one task more. Of `overrides`, dataset.KEY is of the new folder
/// (data set image_folder); train and eval may change, too, and what changes no result. Throws
/// Error, also for a class that the run has learned already.
Config continued_config(const FinishedRun& run, const std::string& folder,
                        const std::vector<std::string>& overrides);

/// Whether the method, made for `config`, takes its state of `run` as it is; false: it must grow.
/// Throws Error where it cannot go on.
bool has_room(const FinishedRun& run, const Config& config, const Method& method);

}  // namespace rep
