#pragma once

#include <string>

namespace rep {

/// Whether a method's pool of 100 components (its default) is more than vit_nano's width of 96
/// holds; tests on that backbone take kSmallPool.
inline bool has_component_pool(const std::string& method) {
  return method == "coda_prompt" || method == "cps_prompt" || method == "os_prompt";
}
constexpr int kSmallPool = 30;

}  // namespace rep
