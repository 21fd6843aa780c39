// LwF: Learning without Forgetting (Li & Hoiem, arXiv 1606.09282).
// The idea in three lines: nothing of old tasks is kept but the network itself, as it was when the
// last one ended; on the current images the new network's logits of the old classes are held to
// what that teacher says of them, softened by a temperature; the labels train the rest.
// The teacher sees the very tensor that the network trains on, the batch's random views (in
// evaluation mode, neither merging nor dropping a layer of its own); Mammoth records its answers
// once, on images that are not even normalised. Differs from the paper: one classifier and one
// softmax over all old classes instead of one per task, and the new classes' outputs are not
// trained alone first.

#include "methods/distillation.h"
#include "methods/head_methods.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct LwfOptions : NetworkOptions {
  double alpha = 1;
  double temperature = 2;

  template <class Visitor>
  void fields(Visitor&& visit) {
    network_fields(visit);
    visit("alpha", alpha, at_least(0),
          doc("Weight of the distillation of old classes (lambda_o)."));
    visit("temperature", temperature, above(0), doc("Temperature of the distillation (T)."));
  }
};

class Lwf final : public HeadMethod {
 public:
  Lwf(const MethodContext& context, const LwfOptions& options)
      : HeadMethod(context, options), options_(options) {}

  void begin_task(const Task& task) override {
    HeadMethod::begin_task(task);
    old_classes_ = task.first_label;
    if (old_classes_ > 0) teacher_ = network_.copy_values();
  }

  std::vector<TrainedRows> trained_rows() override { return rows_of_seen(); }
  /// What to distil are the classes before the task's own.
  bool learns_repeated_classes() const override { return false; }

  torch::Tensor loss(const Batch& batch) override {
    const Network::Input input = network_.train_input(batch);
    torch::Tensor old;  // [B, old classes]
    if (old_classes_ > 0) {
      old = old_logits(network_.as(teacher_, [&] {
        return network_.logits({input.x, /*plan=*/{}, /*training=*/false});
      }));
    }
    const torch::Tensor logits = network_.logits(input);
    const torch::Tensor task_loss = cross_entropy(logits, batch);
    if (old_classes_ == 0) return task_loss;
    return task_loss + options_.alpha * distillation(old_logits(logits), old, options_.temperature);
  }

  void end_task(const Task&) override {
    old_classes_ = 0;
    teacher_.clear();
  }

  void state(State& s) override {
    HeadMethod::state(s);
    s("old_classes", old_classes_);
    if (old_classes_ > 0) s("teacher", teacher_);
  }

 private:
  torch::Tensor old_logits(const torch::Tensor& logits) const {
    return logits.narrow(1, 0, old_classes_);
  }

  LwfOptions options_;
  int64_t old_classes_ = 0;             // of the tasks before the one in hand
  std::vector<torch::Tensor> teacher_;  // the network when the last of those ended
};

const Registered<MethodKind> kLwf{"lwf",
                                  "Li & Hoiem 2017, Learning without Forgetting (arXiv 1606.09282)",
                                  method_kind<Lwf, LwfOptions>()};

}  // namespace

}  // namespace rep
