#pragma once

#include <string>
#include <vector>

namespace rep {

/// " (did you mean 'epochs'?)" for the candidate nearest to `word` in edit distance, or "" when
/// none is near enough (more than a third of the letters differ).
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);

/// `text` with every control character replaced by "?": a message is one line, whatever a file
/// holds.
std::string one_line(std::string text);

/// 'text' as messages show it: one line, in quotes, and cut where nobody would read on (it may come
/// from an untrusted file).
std::string quoted(const std::string& text);

/// "a, b, c"
std::string join(const std::vector<std::string>& words, const std::string& separator = ", ");

}  // namespace rep
