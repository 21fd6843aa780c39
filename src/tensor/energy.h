#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace rep {

/// One counter or gauge of energy, of which joules so far can be asked.
class EnergySensor {
 public:
  virtual ~EnergySensor() = default;
  /// Joules since the sensor was made. `now`: seconds of a steady clock, never less than before.
  /// Not a number once the sensor could not be read, from then on.
  virtual double joules(double now) = 0;
};

/// The sensors of a machine that together count every joule once:
///   RAPL  Linux powercap, /sys/class/powercap/intel-rapl:N (Intel and AMD): packages and their
///         DRAM. uJ counters that wrap around at max_energy_range_uj; cores and graphics are
///         parts of their package, and psys and the intel-rapl-mmio twins would count twice.
///   INA   the INA2xx/INA3221 of a Jetson, from hwmon (mV and mA, or uW) or, before JetPack 5, iio
///         (mW): power, which is integrated between readings. The rail of the whole board where
///         there is one (VDD_IN, POM_5V_IN, ...), otherwise all rails.
///   NVML  nvmlDeviceGetTotalEnergyConsumption of every GPU that CUDA_VISIBLE_DEVICES leaves.
/// What else the machine does meanwhile is counted too.
class EnergyMeter {
 public:
  struct Options {
    std::string sysfs = "/sys";
    std::string nvml = "libnvidia-ml.so.1";  // opened at run time; "": GPUs are not asked
    double now = 0;                          // seconds of the clock that joules() is given
  };
  explicit EnergyMeter(const Options& options);

  /// "RAPL package-0, dram", or "none: " and the reason.
  const std::string& source() const { return source_; }
  bool measures() const { return !sensors_.empty(); }
  /// Joules since construction, of all sensors; not a number when there is none, or one failed.
  /// To be called at least once a minute, before a RAPL counter passes the same point twice.
  double joules(double now);

 private:
  std::vector<std::unique_ptr<EnergySensor>> sensors_;
  std::string source_;
};

}  // namespace rep
