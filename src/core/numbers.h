#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

namespace rep {

/// The whole of `text` as a number of that type, whatever the locale: no blanks, plus sign, hex or
/// rest. None when it is anything else or does not fit.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && rest == end ? std::optional<T>(value) : std::nullopt;
}

}  // namespace rep
