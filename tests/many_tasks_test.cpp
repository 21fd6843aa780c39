// 300 tasks of a pair of classes each: minutes, so only when asked for (label long).
#include "tests/long_runs.h"

namespace rep {
namespace {

TEST(ManyTasks, CostTheLastOfThreeHundredWhatTheyCostTheFirstOnes) {
  for (const char* method : {"l2p", "er", "ncm"}) expect_flat_costs(method, 300);
}

}  // namespace
}  // namespace rep
