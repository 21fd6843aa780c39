#pragma once

#include "tests/run_command.h"

namespace rep {

/// Runs `method` over `tasks` (20 or more) of two synthetic classes each, and expects of the last
/// but one (the last is tested, too) what an early one cost: the same multiply-accumulates, peak
/// and carried bytes.
inline void expect_flat_costs(const std::string& method, int64_t tasks) {
  SCOPED_TRACE(method);
  const bool is_er = method == "er", trains = method != "ncm";
  const std::string folder = fresh_folder("many_tasks_" + std::to_string(tasks));
  const std::string count = std::to_string(tasks), out = folder + "/" + method;
  std::string text = small_experiment(method, "eval: {every_tasks: " + count + "}\n");
  text =
      edited(text, "classes: 6, train_per_class: 16, test_per_class: 4",
             "classes: " + std::to_string(2 * tasks) + ", train_per_class: 4, test_per_class: 1");
  text = edited(edited(text, "{tasks: 3}", "{tasks: " + count + "}"), "epochs: 3", "epochs: 1");
  const Finished run = rep_command("run " + write_text(folder + "/c.yaml", text) +
                                   " -q --set train.checkpoint_seconds=3600 --output " + out +
                                   (is_er ? " --set method.buffer_size=8" : ""));
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json result = read_json(out + "/result.json");
  const auto& costs = result["cost"]["per_task"];
  ASSERT_EQ(costs.size(), static_cast<size_t>(tasks));
  const auto& early = costs[10];  // by when a buffer is full
  const auto& late = costs[static_cast<size_t>(tasks) - 2];
  EXPECT_EQ(early["macs"]["train"], late["macs"]["train"]);
  EXPECT_EQ(result["tasks"].back()["iterations"], trains ? 1 : 0);
  for (const char* bytes : {"state_bytes", "peak_tensor_bytes"}) {
    // What er carries are encoded images, of not quite the same size.
    EXPECT_NEAR(late[bytes].get<double>() / early[bytes].get<double>(), 1, is_er ? 0.02 : 0)
        << bytes;
  }
  // The rest of a checkpoint: cached queries, rows of costs and of a matrix.
  EXPECT_LT(std::filesystem::file_size(out + "/checkpoint/state.safetensors"),
            static_cast<uintmax_t>(result["cost"]["state_bytes"].get<int64_t>()) + 5000000);
}

}  // namespace rep
