#pragma once

#include <optional>
#include <string>

namespace rep {

/// What a tensor of a method's state (Method::state) is for.
struct TensorRole {
  std::string role;     // prompt | key | head | statistics | adapter | lora | network | generator |
                        // memory
  std::string meaning;  // a line for people
  bool is_memory() const { return role == "memory"; }  // needed to learn more, not to predict
};

/// By its name: "prompt", "set.0.adapter.3.down.weight". Nothing for a name that is not known.
std::optional<TensorRole> role_of(const std::string& name);

}  // namespace rep
