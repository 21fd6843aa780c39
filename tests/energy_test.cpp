// Joules against arithmetic by hand, from trees of files such as the kernel's sysfs shows.

#include "tensor/energy.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace rep {
namespace {

namespace fs = std::filesystem;

class EnergyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "rep_energy_" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text << "\n";
  }
  void zone(const std::string& folder, const std::string& name, const std::string& microjoules,
            const std::string& range = "262143328850") {
    const std::string path = "class/powercap/" + folder;
    write(path + "/name", name);
    write(path + "/energy_uj", microjoules);
    write(path + "/max_energy_range_uj", range);
  }
  EnergyMeter meter(const std::string& nvml = "") const {
    EnergyMeter::Options options;
    options.sysfs = root_;
    options.nvml = nvml;
    return EnergyMeter(options);
  }
  std::string root_;
};

TEST_F(EnergyTest, SaysThatThereIsNothing) {
  EnergyMeter none = meter("libno-such-library.so.1");
  EXPECT_FALSE(none.measures());
  EXPECT_EQ(none.source(), "none: no RAPL, NVML or INA sensor found");
  EXPECT_TRUE(std::isnan(none.joules(1)));
}

TEST_F(EnergyTest, AddsPackagesAndDramOnce) {
  zone("intel-rapl:0", "package-0", "1000000");
  zone("intel-rapl:0:0", "core", "500");
  zone("intel-rapl:0:1", "dram", "0");
  zone("intel-rapl:1", "package-1", "77");
  zone("intel-rapl:2", "psys", "5");
  zone("intel-rapl-mmio:0", "package-0", "1000000");
  write("class/powercap/intel-rapl/enabled", "1");
  EnergyMeter both = meter();
  EXPECT_EQ(both.source(), "RAPL package-0, dram, package-1");
  EXPECT_EQ(both.joules(1), 0);
  zone("intel-rapl:0", "package-0", "3500000");       // 2.5 J
  zone("intel-rapl:0:0", "core", "900500");           // part of it
  zone("intel-rapl:0:1", "dram", "250000");           // 0.25 J
  zone("intel-rapl:1", "package-1", "1000077");       // 1 J
  zone("intel-rapl:2", "psys", "9000000");            // all of it again
  zone("intel-rapl-mmio:0", "package-0", "3500000");  // package-0 again
  EXPECT_NEAR(both.joules(2), 3.75, 1e-12);
  EXPECT_NEAR(both.joules(3), 3.75, 1e-12) << "nothing more until a counter moves";
}

TEST_F(EnergyTest, GoesOnWhenACounterBeginsAnew) {
  zone("intel-rapl:0", "package-0", "4000000", "5000000");
  EnergyMeter one = meter();
  zone("intel-rapl:0", "package-0", "500000", "5000000");
  EXPECT_NEAR(one.joules(1), 1.5, 1e-12);
  zone("intel-rapl:0", "package-0", "4500000", "5000000");
  EXPECT_NEAR(one.joules(2), 5.5, 1e-12);
  zone("intel-rapl:0", "package-0", "0", "5000000");
  EXPECT_NEAR(one.joules(3), 6.0, 1e-12);
}

TEST_F(EnergyTest, SaysWhichFileMayNotBeRead) {
  if (geteuid() == 0) {
    // Root reads whatever its mode says: a number that is none stands for it.
    zone("intel-rapl:0", "package-0", "denied");
    EXPECT_NE(meter().source().find("energy_uj holds no number"), std::string::npos);
  } else {
    zone("intel-rapl:0", "package-0", "1");
    fs::permissions(root_ + "/class/powercap/intel-rapl:0/energy_uj", fs::perms::none);
    EXPECT_NE(meter().source().find("energy_uj may not be read"), std::string::npos);
  }
  zone("intel-rapl:1", "package-1", "1");
  EnergyMeter half = meter();
  EXPECT_FALSE(half.measures()) << "one of two packages is not the machine";
  EXPECT_EQ(half.source().find("none: "), 0U) << half.source();
}

TEST_F(EnergyTest, IsUnknownOnceASensorIsGone) {
  zone("intel-rapl:0", "package-0", "1");
  EnergyMeter one = meter();
  fs::remove_all(root_ + "/class/powercap/intel-rapl:0");
  EXPECT_TRUE(std::isnan(one.joules(1)));
  zone("intel-rapl:0", "package-0", "5");
  EXPECT_TRUE(std::isnan(one.joules(2))) << "what passed meanwhile is not known";
}

TEST_F(EnergyTest, IntegratesTheBoardsPowerOfAJetson) {
  const std::string chip = "class/hwmon/hwmon3/";
  write(chip + "name", "ina3221");
  write(chip + "in1_label", "VDD_IN");
  write(chip + "in1_input", "5000");     // mV
  write(chip + "curr1_input", "2000");   // mA: 10 W
  write(chip + "in2_label", "VDD_SOC");  // a part of VDD_IN
  write(chip + "in2_input", "5000");
  write(chip + "curr2_input", "400");
  write("class/hwmon/hwmon1/name", "cpu_thermal");
  EnergyMeter board = meter();
  EXPECT_EQ(board.source(), "INA VDD_IN");
  EXPECT_NEAR(board.joules(2), 20, 1e-9);
  write(chip + "curr1_input", "4000");  // 20 W
  EXPECT_NEAR(board.joules(3), 35, 1e-9) << "15 J in the second of the rise";
}

TEST_F(EnergyTest, AddsTheRailsOfAnOlderJetson) {
  const std::string chip = "bus/iio/devices/iio:device0/";
  write(chip + "name", "ina3221x");
  write(chip + "rail_name_0", "VDD_GPU");
  write(chip + "in_power0_input", "1500");  // mW
  write(chip + "rail_name_1", "VDD_CPU");
  write(chip + "in_power1_input", "500");
  EnergyMeter board = meter();
  EXPECT_EQ(board.source(), "INA VDD_GPU, VDD_CPU");
  EXPECT_NEAR(board.joules(10), 20, 1e-9);
}

// tests/fake_nvml.cpp: two GPUs that count 1 J and 100 J more at every question; the third counts
// nothing.
TEST_F(EnergyTest, AsksTheGpusThatAreVisible) {
  unsetenv("CUDA_VISIBLE_DEVICES");
  EnergyMeter all = meter(REP_FAKE_NVML);
  EXPECT_EQ(all.source(), "NVML Fake 0, Fake 1; without: Fake 2 does not count its energy");
  EXPECT_NEAR(all.joules(1), 101, 1e-9);
  setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  EnergyMeter second = meter(REP_FAKE_NVML);
  EXPECT_EQ(second.source(), "NVML Fake 1");
  EXPECT_NEAR(second.joules(1), 100, 1e-9);
  setenv("CUDA_VISIBLE_DEVICES", "GPU-fake-0,-1,1", 1);
  EXPECT_EQ(meter(REP_FAKE_NVML).source(), "NVML Fake 0")
      << "as CUDA does, up to the first that is none";
  unsetenv("CUDA_VISIBLE_DEVICES");
}

}  // namespace
}  // namespace rep
