#pragma once

#include <string>

#include "study/report_table.h"

namespace rep {

/// A part of the page for each run whose result says how its classes fared (study/class_results.h):
/// the confusion matrix, the pairs that were confused most, and the accuracy of every class.
std::string class_pages(const Table& table);

}  // namespace rep
