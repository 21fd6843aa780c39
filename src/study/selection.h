#pragma once

#include "core/progress.h"
#include "study/sweep_plan.h"

namespace rep {

/// Chooses among the settings of a sweep without its test images, and tests the choice:
///   1. Every run of `options` runs on a validation share (stream.validation, 0.2 where a
///      configuration has none). No test image is opened.
///   2. Of each configuration the setting (a choice of the grid) with the highest
///      average_accuracy, mean over seeds, is chosen; of equals the first.
///   3. OUTPUT/selection.json and selection.md say which, with the table of all.
///   4. The chosen settings run once a seed on all training images (stream.validation 0) and are
///      tested; selection.json then names those runs and their accuracies, too.
/// Repeated, it goes on as a sweep does. Throws Error and Interrupted as run_sweep does: where a
/// run fails nothing is chosen and nothing tested.
///
/// selection.json: {"by": "average_accuracy", "settings": [{"config", "overrides", "runs": [..],
/// "validation_accuracies": [..], "validation_accuracy", "chosen"}], "tested": [{"config",
/// "overrides", "seed", "directory", "average_accuracy"}]}; directories below OUTPUT.
void select_and_test(const SweepOptions& options, const ExperimentReader& reader,
                     Progress& progress);

}  // namespace rep
