#include "nn/query_cache.h"

#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/numbers.h"
#include "formats/safetensors.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

struct StoredQueries {
  torch::Tensor queries, known;
  int64_t macs = 0;
};

StoredQueries read_stored(const std::string& path, const std::string& key, int64_t images,
                          int64_t width) {
  const std::string remedy = "; remove it, and it will be recomputed";
  Safetensors file;
  try {
    file = read_safetensors(path);
  } catch (const Error&) {
    throw Error(path + ": is incomplete or damaged" + remedy);
  }
  if (file.metadata["key"] != key) {
    throw Error(path + ": holds queries of other images or of another model" + remedy);
  }
  StoredQueries stored;
  for (const auto& [name, tensor] : file.tensors) {
    if (name == "queries") stored.queries = tensor;
    if (name == "known") stored.known = tensor;
  }
  const auto macs = parse_number<int64_t>(file.metadata["macs"]);
  const bool is_whole = stored.queries.defined() && stored.known.defined() &&
                        stored.queries.scalar_type() == torch::kFloat &&
                        stored.known.scalar_type() == torch::kBool &&
                        stored.queries.sizes() == torch::IntArrayRef({images, width}) &&
                        stored.known.sizes() == torch::IntArrayRef({images}) && macs && *macs >= 0;
  if (!is_whole) throw Error(path + ": is incomplete or damaged" + remedy);
  stored.macs = *macs;
  return stored;
}

/// Of a file that is there: when it was written, and its size. "" of one that is not.
std::string stamp_of(const std::string& path) {
  std::error_code none;
  const auto bytes = fs::file_size(path, none);
  if (none) return "";
  const auto time = fs::last_write_time(path, none).time_since_epoch().count();
  return std::to_string(time) + " " + std::to_string(bytes);
}

torch::Tensor positions_of(const torch::Tensor& marked) { return marked.nonzero().squeeze(1); }

/// Rows `positions` of `to` as in `from`.
void copy_rows(const torch::Tensor& to, const torch::Tensor& from, const torch::Tensor& positions) {
  to.index_copy_(0, positions, from.index_select(0, positions));
}

}  // namespace

void QueryCache::make(int64_t width) {
  if (images_ == 0 || is_made()) return;
  queries_ = torch::zeros({images_, width});
  known_ = torch::zeros({images_}, torch::kBool);
  if (patches_ > 0) scores_ = torch::zeros({images_, patches_});
  read_file();
}

void QueryCache::read_file() {
  if (path_.empty() || patches_ > 0) return;
  seen_ = stamp_of(path_);
  if (seen_.empty()) return;
  const StoredQueries stored = read_stored(path_, key_, images_, queries_.size(1));
  macs_ = stored.macs;
  unused_ = stored.known.logical_and(known_.logical_not());
  copy_rows(queries_, stored.queries, positions_of(unused_));
  known_ = known_.logical_or(unused_);
}

void QueryCache::count_reused(const torch::Tensor& indices) {
  if (!unused_.defined()) return;
  const auto reused = unused_.index_select(0, indices).sum().item<int64_t>();
  if (reused == 0) return;
  const PhaseScope phase(Phase::kSelect);
  count_macs(reused * macs_);
  from_file_ += reused;
  unused_.index_fill_(0, indices, false);
}

QueryAnswer QueryCache::answer(const torch::Tensor& images, const torch::Tensor& indices,
                               const Compute& compute) {
  const bool room = indices.numel() > 0 && indices.max().item<int64_t>() < images_;
  const bool scored = patches_ > 0;
  if (!room) return compute(images, scored);
  count_reused(indices);
  const torch::Tensor rows = positions_of(known_.index_select(0, indices).logical_not());
  if (rows.numel() > 0) {
    const bool all = rows.numel() == indices.numel();
    const torch::Tensor fresh = all ? images : images.index_select(0, rows.to(images.device()));
    const torch::Tensor positions = indices.index_select(0, rows);
    const int64_t before = macs_so_far();
    const QueryAnswer answer = compute(fresh, scored);
    macs_ = (macs_so_far() - before) / rows.numel();
    queries_.index_copy_(0, positions, answer.queries.cpu());
    if (scored) scores_.index_copy_(0, positions, answer.patch_scores.cpu());
    known_.index_fill_(0, positions, true);
    is_fresh_ = true;
  }
  const auto recalled = [&](const torch::Tensor& all) {
    return all.defined() ? all.index_select(0, indices).to(images.device()) : all;
  };
  return {recalled(queries_), recalled(scores_)};
}

void QueryCache::keep() {
  if (path_.empty() || patches_ > 0 || !is_fresh_) return;
  torch::Tensor known = known_;
  if (const std::string now = stamp_of(path_); !now.empty() && now != seen_) {
    // Another run has added to it.
    const StoredQueries stored = read_stored(path_, key_, images_, queries_.size(1));
    copy_rows(queries_, stored.queries,
              positions_of(stored.known.logical_and(known.logical_not())));
    known = known.logical_or(stored.known);
  }
  write_safetensors(path_, {{"queries", queries_}, {"known", known}},
                    {{"key", key_}, {"macs", std::to_string(macs_)}});
  seen_ = stamp_of(path_);
  is_fresh_ = false;
}

void QueryCache::forget() {
  for (torch::Tensor* rows : {&queries_, &known_, &scores_, &unused_}) rows->reset();
}

// A run that goes on (rep learn) has images behind those whose queries it brought along.
void QueryCache::fit_to_images() {
  if (!is_made() || known_.size(0) >= images_) return;
  for (torch::Tensor* rows : {&queries_, &known_, &scores_}) {
    if (!rows->defined()) continue;
    std::vector<int64_t> more = rows->sizes().vec();
    more[0] = images_ - more[0];
    *rows = torch::cat({*rows, torch::zeros(more, rows->options())});
  }
}

void QueryCache::state(State& s, const std::string& split) {
  if (s.loading() && images_ == 0) return;
  // What came from the file and was not asked for is not this run's yet: its MACs are to be
  // counted.
  torch::Tensor known = unused_.defined() ? known_.logical_and(unused_.logical_not()) : known_;
  s.on_cpu(split + "_queries", queries_);
  s.on_cpu(split + "_known", known);
  if (split == "train") s.on_cpu("train_scores", scores_);
  torch::Tensor from_file = from_file_ > 0 ? torch::tensor(from_file_) : torch::Tensor();
  s.on_cpu(split + "_from_file", from_file);
  if (!s.loading()) return;
  known_ = known;
  if (from_file.defined() && from_file.numel() == 1) from_file_ = from_file.item<int64_t>();
  fit_to_images();
  if (is_made()) read_file();
}

}  // namespace rep
