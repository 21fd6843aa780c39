#include "core/json_file.h"

#include "core/error.h"
#include "core/files.h"

namespace rep {

Json parse_json(const std::string& text, const std::string& path) {
  constexpr int kMaxDepth = 32;
  const auto bound_depth = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) throw Error(path + ": nested too deeply to be a file of rep");
    return true;
  };
  try {
    return Json::parse(text, bound_depth);
  } catch (const Json::exception&) {
    return nullptr;
  }
}

Json read_json_file(const std::string& path) {
  return parse_json(read_file(path, size_t{64} << 20), path);
}

}  // namespace rep
