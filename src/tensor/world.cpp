// Data-parallel processes over c10d. Everything that several processes must agree on passes through
// one all-reduce of a flat CPU buffer, so that no order of many small messages has to match.
#include "tensor/world.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <tuple>

#include "core/error.h"
#include "core/hash.h"
#include "core/interrupt.h"
#include "core/suggest.h"
#include "tensor/torch.h"

#if defined(USE_C10D_GLOO) && __has_include(<gloo/rendezvous/store.h>)
#define REP_HAS_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#endif

namespace rep {

namespace {

constexpr int64_t kMaxProcesses = 1 << 16;
constexpr std::chrono::minutes kPatience{5};  // for the others to arrive
constexpr double kRounding = 1e-3;            // of a norm; another sign is 2

std::optional<int64_t> number_in_environment(const char* name, int64_t least, int64_t most) {
  const char* text = std::getenv(name);
  if (!text || !*text) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text, &end, 10);
  if (errno != 0 || *end != '\0' || value < least || value > most) {
    throw Error(std::string("the environment's ") + name + " is '" + text +
                "', which is not a number from " + std::to_string(least) + " to " +
                std::to_string(most) + "; unset it to run as one process");
  }
  return value;
}

std::string address() {
  const char* host = std::getenv("MASTER_ADDR");
  return host && *host ? host : "127.0.0.1";
}

int64_t port() {
  if (const auto given = number_in_environment("MASTER_PORT", 1, 65535)) return *given;
  // Jobs beside each other on one machine must not meet.
  const auto job = number_in_environment("SLURM_JOB_ID", 0, int64_t{1} << 40);
  return job ? 20000 + *job % 20000 : 29500;
}

Error differ(const std::string& what) {
  return Error(what +
               " differ between the processes, which have computed different things; run one "
               "process, or the same program on machines of one kind");
}

#ifdef REP_HAS_GLOO
// LibTorch 2.4 and newer ask for libuv, which not every build has.
template <class Options>
auto without_libuv(Options& options, int) -> decltype((void)(options.useLibUV = false)) {
  options.useLibUV = false;
}
template <class Options>
void without_libuv(Options&, long) {}
#endif

}  // namespace

struct World::Group {
#ifdef REP_HAS_GLOO
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
#endif
};

World::World() = default;
World::~World() = default;
World::World(World&&) noexcept = default;
World& World::operator=(World&&) noexcept = default;

std::pair<int64_t, int64_t> World::place_from_environment() {
  for (const auto& [rank_name, size_name] : {std::pair{"RANK", "WORLD_SIZE"},
                                             {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
                                             {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                             {"PMI_RANK", "PMI_SIZE"}}) {
    if (!std::getenv(rank_name) || !std::getenv(size_name)) continue;
    const auto size = number_in_environment(size_name, 1, kMaxProcesses);
    const auto rank = number_in_environment(rank_name, 0, size.value_or(1) - 1);
    if (size && rank) return {*rank, *size};
  }
  return {0, 1};
}

int64_t World::processes_on_this_machine() {
  for (const char* name : {"LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}) {
    if (const auto count = number_in_environment(name, 1, kMaxProcesses)) return *count;
  }
  return 1;
}

World World::join() {
  World world;
  std::tie(world.rank_, world.size_) = place_from_environment();
  if (world.size_ == 1) return world;
#ifdef REP_HAS_GLOO
  const std::string where = address() + ":" + std::to_string(port());
  try {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port());
    options.isServer = world.rank_ == 0;
    options.numWorkers = static_cast<size_t>(world.size_);
    options.timeout = kPatience;
    without_libuv(options, 0);
    const c10::intrusive_ptr<c10d::Store> store =
        c10::make_intrusive<c10d::TCPStore>(address(), options);
    auto gloo = c10d::ProcessGroupGloo::Options::create();
    gloo->devices.push_back(address() == "127.0.0.1" || address() == "localhost"
                                ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                : c10d::ProcessGroupGloo::createDefaultDevice());
    world.group_ = std::make_unique<Group>();
    world.group_->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
        store, static_cast<int>(world.rank_), static_cast<int>(world.size_), gloo);
  } catch (const std::exception& e) {
    throw Error("process " + std::to_string(world.rank_) + " of " + std::to_string(world.size_) +
                " does not meet the others at " + where +
                " (MASTER_ADDR and MASTER_PORT name another place): " + one_line(e.what()));
  }
  return world;
#else
  throw Error("the environment asks for " + std::to_string(world.size_) +
              " processes, and this LibTorch comes without gloo's headers; install libgloo-dev and "
              "build again, or run one process");
#endif
}

std::pair<int64_t, int64_t> World::part_of(int64_t n) const {
  return {n * rank_ / size_, n * (rank_ + 1) / size_};
}

void World::sum(torch::Tensor& values) const {
  if (size_ == 1) return;
#ifdef REP_HAS_GLOO
  try {
    std::vector<torch::Tensor> tensors{values};
    group_->gloo->allreduce(tensors)->wait();
  } catch (const std::exception& e) {
    if (signal_received()) throw Interrupted("stopped with the other processes");
    throw Error("process " + std::to_string(rank_) + " of " + std::to_string(size_) +
                " lost the others, so this run stops; --resume goes on from the last checkpoint: " +
                one_line(e.what()));
  }
#endif
}

std::vector<double> World::average_gradients(const std::vector<torch::Tensor>& parameters,
                                             double weight, std::vector<double> beside) {
  if (size_ == 1) return beside;
  const torch::NoGradGuard no_grad;
  // The gradients, for each whether it is there, and the numbers beside them.
  int64_t gradients = 0;
  for (const torch::Tensor& p : parameters) gradients += p.numel();
  const auto flags = static_cast<int64_t>(parameters.size());
  const int64_t size = gradients + flags + static_cast<int64_t>(beside.size());
  if (!flat_.defined() || flat_.numel() != size) flat_ = torch::empty({size});
  flat_.zero_();
  float* const flag = flat_.data_ptr<float>() + gradients;
  float* const number = flag + flags;
  int64_t at = 0, index = 0;
  for (const torch::Tensor& p : parameters) {
    if (p.grad().defined()) {
      flat_.narrow(0, at, p.numel()).copy_(p.grad().flatten()).mul_(weight);
      flag[index] = 1;
    }
    at += p.numel();
    ++index;
  }
  std::copy(beside.begin(), beside.end(), number);
  sum(flat_);
  at = 0, index = 0;
  for (const torch::Tensor& p : parameters) {
    if (flag[index++] > 0) {
      const torch::Tensor sum = flat_.narrow(0, at, p.numel()).view_as(p).to(p.device());
      if (p.grad().defined()) {
        p.grad().copy_(sum);
      } else {
        p.mutable_grad() = sum.clone();
      }
    }
    at += p.numel();
  }
  std::copy_n(number, beside.size(), beside.begin());
  return beside;
}

void World::expect_equal(const std::vector<torch::Tensor>& values, const std::string& what) const {
  if (size_ == 1) return;
  Sha256 hash;
  for (const torch::Tensor& value : values) {
    const torch::Tensor bits = value.detach().cpu().contiguous();
    hash.update(bits.data_ptr(), bits.nbytes());
  }
  // The digest in words of 16 bits. All processes hold the same word w exactly where n sum(w^2) =
  // (sum w)^2 (Cauchy and Schwarz), which every one of them sees alike.
  const std::string hex = hash.hex();
  constexpr int64_t kWords = 16;
  torch::Tensor sums = torch::empty({2 * kWords}, torch::kLong);
  for (int64_t i = 0; i < kWords; ++i) {
    const int64_t word = std::stoll(hex.substr(static_cast<size_t>(4 * i), 4), nullptr, 16);
    sums[i] = word;
    sums[kWords + i] = word * word;
  }
  sum(sums);
  const torch::Tensor plain = sums.narrow(0, 0, kWords), squares = sums.narrow(0, kWords, kWords);
  if (!torch::equal(squares * size_, plain * plain)) throw differ(what);
}

void World::expect_close(const std::vector<torch::Tensor>& values, const std::string& what) const {
  if (size_ == 1) return;
  std::vector<int64_t> sizes;
  for (const torch::Tensor& value : values) sizes.push_back(value.numel());
  expect_equal({torch::tensor(sizes, torch::kLong)}, what);
  std::vector<torch::Tensor> squares;  // of each: distances from the mean, and the values
  for (const torch::Tensor& value : values) {
    if (value.numel() == 0) continue;
    const torch::Tensor own = value.detach().cpu().to(torch::kDouble).flatten();
    torch::Tensor mean = own.clone();
    sum(mean);
    mean.div_(static_cast<double>(size_));
    squares.push_back((own - mean).square().sum());
    squares.push_back(own.square().sum());
  }
  if (squares.empty()) return;
  torch::Tensor sums = torch::stack(squares).view({-1, 2});
  sum(sums);
  // Not >: what is no number is not close to anything.
  const torch::Tensor close = sums.select(1, 0).le(kRounding * kRounding * sums.select(1, 1));
  if (!close.all().item<bool>()) throw differ(what);
}

}  // namespace rep
