#include "run/session.h"

#include <utility>

#include "data/device_images.h"
#include "methods/method.h"
#include "tensor/device.h"
#include "tensor/meter.h"

namespace rep {

Scenario open_scenario(const Config& config, const torch::Device& device) {
  Scenario scenario;
  scenario.train = open_dataset(config.dataset, Split::kTrain, config.seed, device);
  scenario.test = open_dataset(config.dataset, Split::kTest, config.seed, device);
  scenario.stream = cut_into_tasks(*scenario.train, *scenario.test, config.stream, config.seed);
  const MethodKind& method = Registry<MethodKind>::get().at(config.method.name).value;
  if (method.rearrange) method.rearrange(scenario.stream);
  return scenario;
}

Session open_session(const Config& config, const std::string& folder,
                     std::shared_ptr<World> world) {
  const torch::Device device = choose_device(config.device);
  if (device.is_cuda()) meter_cuda_device(device.index());
  seed_everything(config.seed);
  Scenario scenario = open_scenario(config, device);
  Learner learner(config, scenario.stream, *scenario.train, device, folder);
  learner.join(std::move(world), config);
  learner.efficiency->queries.cache_test(scenario.test->size());
  return {std::move(scenario), config, std::move(learner)};
}

}  // namespace rep
