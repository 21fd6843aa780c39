// Experience replay (Chaudhry et al., arXiv 1902.10486), as Mammoth has it.
// The idea in three lines: a reservoir keeps some images of the stream; every step sees the task's
// batch and an equally large one drawn from the reservoir; plain cross-entropy over both.
// Differs from Mammoth: an image is offered to the buffer the first time it comes by, not once an
// epoch (so none is stored twice), or at the task's end if it never did; pixels are stored encoded,
// not as floats.

#include "methods/replay.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct ErOptions : ReplayOptions {
  template <class Visitor>
  void fields(Visitor&& visit) {
    replay_fields(visit);
  }
};

class Er final : public ReplayMethod {
 public:
  using ReplayMethod::ReplayMethod;
  torch::Tensor loss(const Batch& batch) override {
    const Batch past = replay(batch).first;
    store(batch);
    return HeadMethod::loss(past.labels.defined() ? joined(batch, past) : batch);
  }
  bool can_grow() const override { return true; }
};

const Registered<MethodKind> kEr{"er", "Chaudhry et al. 2019, experience replay (arXiv 1902.10486)",
                                 method_kind<Er, ErOptions>()};

}  // namespace

}  // namespace rep
