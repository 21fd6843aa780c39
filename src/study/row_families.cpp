// The rows of a report by families: a base and its runs with REP.
#include <algorithm>
#include <map>
#include <set>

#include "study/report_table.h"

namespace rep {
namespace {

std::string setting(const Settings& settings, const std::string& key) {
  const auto found = settings.find(key);
  return found == settings.end() ? "" : found->second;
}

bool is_of_rep(const std::string& key) {
  return key.rfind("efficiency.", 0) == 0 || key == "inputs.query_weights";
}

// What a row shares with its base, and with nothing else.
std::string family_of(const Row& row) {
  std::string family;
  for (const auto& [key, value] : row.settings) {
    if (!is_of_rep(key)) family += key + "=" + value + "\n";
  }
  return family;
}

bool rep_of(const Row& row) { return uses_rep(row.runs.front()->settings); }

// "none" first, so that a base stands above its REP.
std::vector<std::string> order_of(const Table& table, const Row& row) {
  std::vector<std::string> order = row.labels;
  for (size_t k = 0; k < order.size() && k < table.label_keys.size(); ++k) {
    if (is_of_rep(table.label_keys[k]) && order[k] == "none") order[k].clear();
  }
  return order;
}

// "lr 0.01", "5 tasks", "l2p".
std::string part_of_name(const std::string& key, const std::string& value) {
  if (key == "stream.tasks") return value + " tasks";
  const std::string word = word_of(key);
  return word.empty() ? value : word + " " + (value.empty() ? "-" : value);
}

// `alone`: no other row of the family uses REP (or leaves it out) as this one does.
std::string name_of(const Table& table, const Row& row, bool alone) {
  std::string name, of_rep;
  for (size_t k = 0; k < table.label_keys.size(); ++k) {
    const std::string& key = table.label_keys[k];
    if (row.labels[k].empty()) continue;
    std::string& text = is_of_rep(key) ? of_rep : name;
    if (!text.empty()) text += ", ";
    text += part_of_name(key, row.labels[k]);
  }
  if (name.empty()) name = setting(row.runs.front()->settings, "method.name");
  if (name.empty()) name = row.runs.front()->name;
  if (rep_of(row)) name += " + REP";
  if (!alone && !of_rep.empty()) name += " (" + of_rep + ")";
  return name;
}

}  // namespace

bool uses_rep(const Settings& settings) {
  const auto is_on = [&](const char* key) {  // drawing patches is not REP's
    const std::string kind = setting(settings, key);
    return !kind.empty() && kind != "none" && kind != "cps" && kind != "patch_dropout";
  };
  return is_on("efficiency.token_merging.kind") || is_on("efficiency.layer_dropping.kind");
}

std::string word_of(const std::string& key) {
  static const std::map<std::string, std::string> kWords{
      {"method.name", ""},
      {"backbone.name", ""},
      {"dataset.name", ""},
      {"stream.tasks", "tasks"},
      {"inputs.weights", "weights"},
      {"inputs.dataset", "data"},
      {"inputs.query_weights", "query weights"},
      {"train.optimizer.lr", "lr"},
      {"train.batch_size", "batch"},
      {"efficiency.query_backbone.name", "query"},
      {"efficiency.token_merging.kind", "token merging"},
      {"efficiency.layer_dropping.kind", "layer dropping"}};
  if (const auto found = kWords.find(key); found != kWords.end()) return found->second;
  std::string word = key;
  for (const char* prefix : {"efficiency.", "method.", "train.", "backbone.", "stream."}) {
    if (word.rfind(prefix, 0) == 0) word = word.substr(std::string(prefix).size());
  }
  std::replace(word.begin(), word.end(), '_', ' ');
  std::replace(word.begin(), word.end(), '.', ' ');
  return word;
}

void arrange_families(Table& table) {
  std::stable_sort(table.rows.begin(), table.rows.end(), [&](const Row& a, const Row& b) {
    return order_of(table, a) < order_of(table, b);
  });
  std::map<std::string, size_t> colours;
  std::map<std::pair<std::string, bool>, std::vector<size_t>> members;  // family, with REP
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const std::string family = family_of(table.rows[i]);
    colours.emplace(family, colours.size());
    members[{family, rep_of(table.rows[i])}].push_back(i);
  }
  for (auto& [key, rows] : members) {
    const auto& [family, rep] = key;
    const auto plain = members.find({family, false});
    for (size_t v = 0; v < rows.size(); ++v) {
      Row& row = table.rows[rows[v]];
      row.style = {colours.at(family), v + (rep ? 1 : 0)};
      row.name = name_of(table, row, rows.size() == 1);
      if (rep && plain != members.end()) row.base = plain->second.front();
    }
  }
}

}  // namespace rep
