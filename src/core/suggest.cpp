#include "core/suggest.h"

#include <algorithm>
#include <cstddef>

namespace rep {
namespace {

/// Insertions, deletions, substitutions and swaps of two neighbours that turn `a` into `b`
/// ("optimal string alignment"). d[i][j] is the distance of the first i letters from the first j.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitution = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + substitution});
      const bool swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swap) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string* best = nullptr;
  size_t best_distance = 0;
  for (const std::string& candidate : candidates) {
    const size_t longer = std::max(word.size(), candidate.size());
    const size_t shorter = std::min(word.size(), candidate.size());
    if (3 * (longer - shorter) > longer) continue;  // also what keeps a huge word cheap
    const size_t distance = edit_distance(word, candidate);
    if (3 * distance > longer || (best && distance >= best_distance)) continue;
    best = &candidate;
    best_distance = distance;
  }
  return best ? " (did you mean '" + *best + "'?)" : "";
}

std::string one_line(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return text;
}

std::string quoted(const std::string& text) {
  constexpr size_t kMaxLetters = 60;
  return "'" + one_line(text.substr(0, kMaxLetters)) + (text.size() <= kMaxLetters ? "'" : "...'");
}

std::string join(const std::vector<std::string>& words, const std::string& separator) {
  std::string joined;
  for (size_t i = 0; i < words.size(); ++i) joined += (i == 0 ? "" : separator) + words[i];
  return joined;
}

}  // namespace rep
