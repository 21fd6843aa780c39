#include "nn/query_cache.h"

#include <filesystem>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/numbers.h"
#include "formats/safetensors.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

struct KeptQueries {
  torch::Tensor queries, known;
  int64_t macs = 0;
};

KeptQueries read_kept(const std::string& path, const std::string& key, int64_t images,
                      int64_t width) {
  Safetensors file = read_safetensors(path);
  const std::string remedy = "; remove the file, and it is made again";
  if (file.metadata["key"] != key) {
    throw Error(path + ": holds queries of other images or of another model" + remedy);
  }
  KeptQueries kept;
  for (auto& [name, tensor] : file.tensors) {
    if (name == "queries") kept.queries = tensor;
    if (name == "known") kept.known = tensor;
  }
  const bool is_whole = kept.queries.defined() && kept.known.defined() &&
                        kept.queries.scalar_type() == torch::kFloat &&
                        kept.known.scalar_type() == torch::kBool &&
                        kept.queries.sizes() == torch::IntArrayRef({images, width}) &&
                        kept.known.sizes() == torch::IntArrayRef({images}) &&
                        torch::isfinite(kept.queries).all().item<bool>();
  const auto macs = parse_number<int64_t>(file.metadata["macs"]);
  if (!is_whole || !macs || *macs < 0) {
    throw Error(path + ": is not a whole file of queries" + remedy);
  }
  kept.macs = *macs;
  return kept;
}

}  // namespace

void QueryCache::make(int64_t width) {
  if (images_ == 0 || made()) return;
  queries_ = torch::zeros({images_, width});
  known_ = torch::zeros({images_}, torch::kBool);
  if (patches_ > 0) scores_ = torch::zeros({images_, patches_});
  read_file();
}

void QueryCache::read_file() {
  if (path_.empty() || patches_ > 0 || !std::filesystem::exists(path_)) return;
  const KeptQueries kept = read_kept(path_, key_, images_, queries_.size(1));
  macs_ = kept.macs;
  lent_ = kept.known.logical_and(known_.logical_not());
  queries_ = torch::where(lent_.unsqueeze(1), kept.queries, queries_);
  known_ = known_.logical_or(lent_);
}

void QueryCache::count_lent(const torch::Tensor& indices) {
  if (!lent_.defined()) return;
  const int64_t lent = lent_.index_select(0, indices).sum().item<int64_t>();
  if (lent == 0) return;
  const PhaseScope phase(Phase::kSelect);
  count_macs(lent * macs_);
  from_file_ += lent;
  lent_.index_fill_(0, indices, false);
}

QueryAnswer QueryCache::answer(const torch::Tensor& images, const torch::Tensor& indices,
                               const Compute& compute) {
  const bool room = indices.numel() > 0 && indices.max().item<int64_t>() < images_;
  const bool scored = patches_ > 0;
  if (!room) return compute(images, scored);
  count_lent(indices);
  const torch::Tensor rows = known_.index_select(0, indices).logical_not().nonzero().squeeze(1);
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
  torch::Tensor queries = queries_, known = known_;
  if (std::filesystem::exists(path_)) {  // another run may have added to it
    const KeptQueries kept = read_kept(path_, key_, images_, queries_.size(1));
    queries = torch::where(known_.unsqueeze(1), queries_, kept.queries);
    known = known_.logical_or(kept.known);
  }
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path());
  write_safetensors(path_, {{"queries", queries}, {"known", known}},
                    {{"key", key_}, {"macs", std::to_string(macs_)}});
  is_fresh_ = false;
}

// A run that goes on (rep learn) has images behind those whose queries it brought along.
void QueryCache::fit_to_images() {
  if (!made() || known_.size(0) >= images_) return;
  for (torch::Tensor* rows : {&queries_, &known_, &scores_}) {
    if (!rows->defined()) continue;
    std::vector<int64_t> more = rows->sizes().vec();
    more[0] = images_ - more[0];
    *rows = torch::cat({*rows, torch::zeros(more, rows->options())});
  }
}

void QueryCache::state(State& s, const std::string& split) {
  if (s.loading() && images_ == 0) return;
  // What came of the file and was not used is not this run's yet: its MACs are still to be counted.
  torch::Tensor known = lent_.defined() ? known_.logical_and(lent_.logical_not()) : known_;
  s.on_cpu(split + "_queries", queries_);
  s.on_cpu(split + "_known", known);
  if (split == "train") s.on_cpu("train_scores", scores_);
  torch::Tensor from_file = from_file_ > 0 ? torch::tensor(from_file_) : torch::Tensor();
  s.on_cpu(split + "_from_file", from_file);
  if (!s.loading()) return;
  known_ = known;
  if (from_file.defined() && from_file.numel() == 1) from_file_ = from_file.item<int64_t>();
  fit_to_images();
  if (made()) read_file();
}

}  // namespace rep
