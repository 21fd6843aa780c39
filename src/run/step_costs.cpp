#include "run/step_costs.h"

#include <algorithm>
#include <iterator>

namespace rep {

namespace {

// The mean of steps [first, end) as query, rest and work.
void mean_of(const std::vector<MeasuredStep>& steps, size_t first, size_t end, Amount& select,
             Amount& rest, double& work) {
  if (end - first > 1) ++first;  // buffers and caches are cold, or empty
  double batches = 0;
  select = rest = {};
  work = 0;
  for (size_t i = first; i < end; ++i) {
    const auto phase = static_cast<size_t>(Phase::kSelect);
    const PhaseCost& cost = steps[i].cost;
    const Amount query{static_cast<double>(cost.macs[phase]), cost.seconds[phase]};
    select += query;
    rest += amount_of(cost) + -1 * query;
    work += steps[i].work * steps[i].share;
    batches += steps[i].share;
  }
  select = 1 / batches * select;
  rest = 1 / batches * rest;
  work /= batches;
}

}  // namespace

Amount& Amount::operator+=(const Amount& other) {
  macs += other.macs;
  seconds += other.seconds;
  return *this;
}

Amount amount_of(const PhaseCost& cost) {
  Amount amount;
  for (const int64_t macs : cost.macs) amount.macs += static_cast<double>(macs);
  for (const double seconds : cost.seconds) amount.seconds += seconds;
  return amount;
}

double tokens_work(const std::vector<int64_t>& tokens, const std::vector<int64_t>& backward,
                   int64_t D) {
  size_t last = tokens.size();  // the last block that runs
  while (last > 0 && tokens[last - 1] == 0) --last;
  const auto work = [&](const std::vector<int64_t>& entered) {
    int64_t whole = 0;
    for (size_t i = 0; i + 1 < last; ++i) whole += entered[i] * (6 * D + entered[i]);
    const int64_t short_one = last > 0 ? entered[last - 1] * D : 0;
    return static_cast<double>(whole) + 1.5 * static_cast<double>(short_one);
  };
  return (work(tokens) + work(backward)) / 2;
}

StepCost mean_step(const std::vector<MeasuredStep>& steps, size_t fresh) {
  StepCost mean;
  fresh = std::min(fresh, steps.size());
  if (fresh > 0) mean_of(steps, 0, fresh, mean.first_select, mean.first_rest, mean.work);
  if (fresh < steps.size()) {
    mean_of(steps, fresh, steps.size(), mean.select, mean.rest, mean.work);
  } else {
    mean.select = mean.first_select;
    mean.rest = mean.first_rest;
  }
  return mean;
}

StepCost interpolated(const std::map<int64_t, StepCost>& costs, int64_t task) {
  const auto above = costs.lower_bound(task);
  if (above == costs.end()) return std::prev(above)->second;
  if (above->first == task || above == costs.begin()) return above->second;
  const auto& [below_task, a] = *std::prev(above);
  const StepCost& b = above->second;
  const double u =
      static_cast<double>(task - below_task) / static_cast<double>(above->first - below_task);
  return {(1 - u) * a.select + u * b.select, (1 - u) * a.rest + u * b.rest,
          (1 - u) * a.first_select + u * b.first_select, (1 - u) * a.first_rest + u * b.first_rest,
          (1 - u) * a.work + u * b.work};
}

}  // namespace rep
