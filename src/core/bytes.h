#pragma once

#include <cstdint>
#include <string>

namespace rep {

/// "2GiB", "512 MiB", "1.5GB", "1000000": a number of bytes, with B, kB, MB, GB, TB (powers of
/// 1000) or KiB, MiB, GiB, TiB (of 1024) behind it. "" is 0. `where` names the text in the Error
/// thrown for anything else, and for 0.
int64_t parse_bytes(const std::string& text, const std::string& where);

/// "1.86 GiB": three significant digits with a binary prefix.
std::string show_bytes(int64_t bytes);

}  // namespace rep
