#pragma once

#include <string>
#include <vector>

#include "study/report_table.h"
#include "study/svg.h"

namespace rep {

/// A row's name in legends: what tells it from the others, and how many runs it has.
std::string label_of(const Row& row);

/// A metric (core/metrics.h) after each task, mean and deviation over the row's runs that got that
/// far; x counts tasks from 1.
std::vector<ChartPoint> over_tasks(const Row& row, const std::string& metric);

/// What the training steps did in each block of a ViT (`key` of cost.per_iteration.efficiency),
/// times `scale`; x counts blocks from 1. Empty where no result says it.
std::vector<ChartPoint> over_blocks(const Row& row, const std::string& key, double scale);

/// Final accuracy against a cost (a short name of report_columns.cpp): one point, or none where no
/// result has both.
std::vector<ChartPoint> against_cost(const Row& row, const std::string& cost);

}  // namespace rep
