// DER and DER++: dark experience for general continual learning (Buzzega et al., arXiv 2004.07211).
// The idea in three lines: with each stored image go the network's logits at that moment; every
// step pulls the logits of a drawn batch back to what they were; DER++ also classifies a second,
// independent draw. Differs from Mammoth: as er does, and with a frozen backbone no forward is
// taken twice. Logits of classes to come are regressed too, as published.

#include "methods/replay.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct DerOptions : ReplayOptions {
  double alpha = 0.3;
  template <class Visitor>
  void fields(Visitor&& visit) {
    replay_fields(visit);
    visit("alpha", alpha, at_least(0), doc("Weight of the distance to the stored logits."));
  }
};

struct DerppOptions : DerOptions {
  double beta = 0.5;
  template <class Visitor>
  void fields(Visitor&& visit) {
    DerOptions::fields(visit);
    visit("beta", beta, at_least(0), doc("Weight of the cross-entropy of a second draw."));
  }
};

class Der : public ReplayMethod {
 public:
  Der(const MethodContext& context, const DerOptions& options)
      : ReplayMethod(context, options), alpha_(options.alpha) {}

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor logits = network_.logits(network_.train_input(batch));
    torch::Tensor total = cross_entropy(logits, batch);
    const auto [past, slots] = replay(batch);
    if (!slots.empty()) {
      std::vector<torch::Tensor> then;
      for (const int64_t slot : slots) then.push_back(buffer_.item(slot).note);
      const torch::Tensor now = network_.logits(network_.train_input(past));
      total = total + alpha_ * torch::mse_loss(now, torch::stack(then).to(now.device()));
    }
    store(batch, logits.detach());
    return total;
  }

 protected:
  torch::Tensor notes_of(const Batch& batch) override {
    return network_.logits(network_.fixed_input(batch));
  }

 private:
  double alpha_;
};

class Derpp final : public Der {
 public:
  Derpp(const MethodContext& context, const DerppOptions& options)
      : Der(context, options), beta_(options.beta) {}

  torch::Tensor loss(const Batch& batch) override {
    const torch::Tensor total = Der::loss(batch);
    const Batch past = replay(batch).first;
    return past.labels.defined() ? total + beta_ * HeadMethod::loss(past) : total;
  }

 private:
  double beta_;
};

const Registered<MethodKind> kDer{"der",
                                  "Buzzega et al. 2020, dark experience replay (arXiv 2004.07211)",
                                  method_kind<Der, DerOptions>()};
const Registered<MethodKind> kDerpp{"derpp", "Buzzega et al. 2020, DER++ (arXiv 2004.07211)",
                                    method_kind<Derpp, DerppOptions>()};

}  // namespace

}  // namespace rep
