// Passes that are recorded give what passes op by op give: on the CPU with a recorder that runs the
// work again, on a GPU with CUDA graphs.
#include "nn/recorded_passes.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "nn/vit.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {
namespace {

using torch::Tensor;

// As a device does it: LibTorch does not see the products of what is started again.
std::vector<Work> run_again(const std::vector<Work>& works) {
  std::vector<Work> again;
  for (const Work& work : works) {
    work();
    again.emplace_back([work] {
      const UncountedMacs unseen;
      work();
    });
  }
  return again;
}

class RecordedPassesTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (device().is_cuda() && !torch::cuda::is_available()) {
      GTEST_SKIP() << "needs a CUDA device, and this LibTorch sees none";
    }
    if (device().is_cuda() && !graph_recorder(device())) {
      GTEST_SKIP() << "this build has no CUDA graphs";
    }
    install_meter();
    torch::manual_seed(1);
    vit->train_last_blocks(0);
    vit->to(device());
  }
  static torch::Device device() { return torch::Device(GetParam()); }
  static Recorder recorder() { return device().is_cuda() ? graph_recorder(device()) : run_again; }
  Tensor random(const std::vector<int64_t>& sizes) const {
    return torch::randn(sizes).to(device());
  }
  Tensor images(int64_t B = 2) const { return random({B, 3, 32, 32}); }

  struct Result {
    Tensor out;
    std::vector<Tensor> slopes;
    int64_t macs;
  };
  // The pass, and the gradients of what the plan learns.
  template <class Pass>
  static Result run(Pass& pass, const Tensor& images, const ForwardPlan& plan) {
    std::vector<Tensor> learned;
    for (const Tensor& t : plan.prefixes) {
      if (t.defined() && t.requires_grad()) learned.push_back(t);
    }
    if (plan.prompts.defined() && plan.prompts.requires_grad()) learned.push_back(plan.prompts);
    const int64_t before = macs_so_far();
    const Tensor out = pass(images, plan);
    std::vector<Tensor> slopes;
    if (!learned.empty()) slopes = torch::autograd::grad({out.square().sum()}, learned);
    return {out.detach(), slopes, macs_so_far() - before};
  }
  static void expect_same(const Result& actual, const Result& expected) {
    // Fused kernels of a GPU need not sum in one order.
    const double tolerance = device().is_cuda() ? 1e-4 : 0;
    EXPECT_TRUE(torch::allclose(actual.out, expected.out, tolerance, tolerance));
    ASSERT_EQ(actual.slopes.size(), expected.slopes.size());
    for (size_t i = 0; i < actual.slopes.size(); ++i) {
      EXPECT_TRUE(torch::allclose(actual.slopes[i], expected.slopes[i], tolerance, tolerance));
    }
    EXPECT_EQ(actual.macs, expected.macs);
  }

  VisionTransformer vit{vit_options("vit_nano")};
  RecordedPasses::Pass op_by_op = [this](const Tensor& x, const ForwardPlan& plan) {
    return vit->forward(x, plan);
  };
};

TEST_P(RecordedPassesTest, GivesWhatThePassGivesWhateverGoesIn) {
  RecordedPasses passes(op_by_op, recorder());
  for (int step = 0; step < 6; ++step) {
    ForwardPlan plan;
    plan.prompts = random({2, 3, 96}).set_requires_grad(true);
    plan.prefixes.resize(6);
    plan.prefixes[1] = random({2, 2, 4, 96}).set_requires_grad(true);
    plan.prefixes[4] = random({2, 2, 4, 96}).set_requires_grad(true);
    plan.merge.assign(6, 2);
    plan.outputs = {0, 4};
    const Tensor in = images();
    expect_same(run(passes, in, plan), run(op_by_op, in, plan));
  }
  EXPECT_EQ(passes.started(), 4);
}

TEST_P(RecordedPassesTest, SharesNoMemoryWithItsResults) {
  RecordedPasses passes(op_by_op, recorder());
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> in, out;
  for (int step = 0; step < 5; ++step) {
    in.push_back(images());
    out.push_back(passes(in.back(), {}));
  }
  EXPECT_EQ(passes.started(), 3);
  for (size_t i = 0; i < in.size(); ++i) {
    expect_same({out[i], {}, 0}, {op_by_op(in[i], {}), {}, 0});
  }
}

TEST_P(RecordedPassesTest, KeepsShapesAndModesApart) {
  RecordedPasses passes(op_by_op, recorder());
  for (int step = 0; step < 4; ++step) {
    for (const int64_t B : {2, 3}) {
      const Tensor in = images(B);
      expect_same(run(passes, in, {}), run(op_by_op, in, {}));
      {
        const c10::InferenceMode inference;
        expect_same(run(passes, in, {}), run(op_by_op, in, {}));
      }
      ForwardPlan plan;
      plan.prompts = random({B, 2, 96});
      expect_same(run(passes, in, plan), run(op_by_op, in, plan));
    }
  }
  EXPECT_EQ(passes.started(), 2 * 3 * 2);
}

// Of two passes before one backward, the second must not take the first's activations.
TEST_P(RecordedPassesTest, ASecondPassBeforeTheBackwardGoesOpByOp) {
  RecordedPasses passes(op_by_op, recorder());
  ForwardPlan plan;
  plan.prompts = random({2, 3, 96}).set_requires_grad(true);
  for (int step = 0; step < 3; ++step) run(passes, images(), plan);
  ASSERT_EQ(passes.started(), 1);
  const Tensor first = images(), second = images();
  const auto loss = [&](auto& pass) {
    return pass(first, plan).square().sum() + pass(second, plan).sum();
  };
  const Tensor actual = torch::autograd::grad({loss(passes)}, {plan.prompts})[0];
  EXPECT_EQ(passes.started(), 2);
  const Tensor expected = torch::autograd::grad({loss(op_by_op)}, {plan.prompts})[0];
  expect_same({actual, {}, 0}, {expected, {}, 0});
  // Nor does a pass that nothing goes back through hold the recording for ever.
  passes(first, plan);
  passes(first, plan);
  EXPECT_EQ(passes.started(), 4);
}

TEST_P(RecordedPassesTest, LeavesOutWhatChangesFromPassToPass) {
  RecordedPasses passes(op_by_op, recorder());
  ForwardPlan drops;
  drops.skip = {false, true, false, false, false, false};
  ForwardPlan makes;
  makes.make_prefix = [](const Tensor&, int64_t) { return Tensor(); };
  for (int step = 0; step < 4; ++step) {
    const Tensor in = images();
    expect_same(run(passes, in, drops), run(op_by_op, in, drops));
    expect_same(run(passes, in, makes), run(op_by_op, in, makes));
  }
  EXPECT_EQ(passes.started(), 0);
}

TEST_P(RecordedPassesTest, ARecordingThatFailsIsNotTakenForThePass) {
  const Recorder throws = [](const std::vector<Work>&) -> std::vector<Work> {
    throw std::runtime_error("cannot be recorded");
  };
  const Recorder does_nothing = [](const std::vector<Work>& works) {
    for (const Work& work : works) work();
    return std::vector<Work>(works.size(), [] {});
  };
  const Recorder nothing_backward = [](const std::vector<Work>& works) {
    std::vector<Work> again = run_again(works);
    again.back() = [] {};
    return again;
  };
  for (const Recorder& recorder : {throws, does_nothing, nothing_backward}) {
    RecordedPasses passes(op_by_op, recorder);
    ForwardPlan plan;
    plan.prompts = random({2, 3, 96}).set_requires_grad(true);
    for (int step = 0; step < 4; ++step) {
      const Tensor in = images();
      expect_same(run(passes, in, plan), run(op_by_op, in, plan));
    }
    EXPECT_EQ(passes.started(), 0);
  }
}

TEST_P(RecordedPassesTest, AVitRecordsItsOwn) {
  const Tensor in = images();
  const auto expected = run(op_by_op, in, {});
  int64_t started = 0;
  vit->record_passes([&](const std::vector<Work>& works) {
    std::vector<Work> counted;
    for (const Work& work : recorder()(works)) {
      counted.emplace_back([&started, work] {
        ++started;
        work();
      });
    }
    return counted;
  });
  for (int step = 0; step < 4; ++step) expect_same(run(op_by_op, in, {}), expected);
  EXPECT_EQ(started, 1 + 2) << "once to be compared, then for the third and the fourth pass";
  // What trains is never recorded: its weights have gradients, too.
  vit->train_last_blocks(6);
  vit->features(in).sum().backward();
  EXPECT_TRUE(vit->blocks[0]->attn->qkv->weight.grad().defined());
}

INSTANTIATE_TEST_SUITE_P(Cpu, RecordedPassesTest, ::testing::Values("cpu"));
INSTANTIATE_TEST_SUITE_P(Cuda, RecordedPassesTest, ::testing::Values("cuda:0"));

}  // namespace
}  // namespace rep
