#include "tensor/energy.h"

#include <dlfcn.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>

#include "core/affix.h"
#include "core/numbers.h"
#include "core/suggest.h"

namespace rep {
namespace {

namespace fs = std::filesystem;
constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// The first line of a file of sysfs; empty when it cannot be read (errno then says why).
std::string line_of(const fs::path& path) {
  errno = 0;
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<uint64_t> number_in(const fs::path& path) {
  return parse_number<uint64_t>(line_of(path));
}

/// Entries of a folder, in order of name; empty when there is none.
std::vector<fs::path> entries(const fs::path& folder) {
  std::error_code ignored;
  std::vector<fs::path> paths;
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    paths.push_back(entry->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// A counter that only rises, but for wrapping around at `range` (0: never).
class Counter final : public EnergySensor {
 public:
  using Read = std::function<std::optional<uint64_t>()>;
  Counter(Read read, uint64_t first, uint64_t range, double joules_a_unit)
      : read_(std::move(read)), last_(first), range_(range), joules_a_unit_(joules_a_unit) {}

  double joules(double) override {
    const std::optional<uint64_t> now = read_();
    if (!now || (*now < last_ && range_ < last_)) sum_ = kUnknown;
    if (std::isnan(sum_)) return sum_;
    const uint64_t units = *now >= last_ ? *now - last_ : range_ - last_ + *now;
    sum_ += static_cast<double>(units) * joules_a_unit_;
    last_ = *now;
    return sum_;
  }

 private:
  Read read_;
  uint64_t last_, range_;
  double joules_a_unit_, sum_ = 0;
};

/// A gauge of watts, integrated by the trapezoid rule between readings.
class Gauge final : public EnergySensor {
 public:
  using Read = std::function<std::optional<double>()>;
  Gauge(Read read, double first, double now) : read_(std::move(read)), watts_(first), now_(now) {}

  double joules(double now) override {
    const std::optional<double> watts = read_();
    if (!watts) sum_ = kUnknown;
    if (std::isnan(sum_)) return sum_;
    sum_ += 0.5 * (watts_ + *watts) * (now - now_);
    watts_ = *watts;
    now_ = now;
    return sum_;
  }

 private:
  Read read_;
  double watts_, now_, sum_ = 0;
};

/// What was found of one kind, and why some was not.
struct Found {
  std::vector<std::unique_ptr<EnergySensor>> sensors;
  std::vector<std::string> names, problems;
};

Found find_rapl(const fs::path& sysfs) {
  Found found;
  for (const fs::path& zone : entries(sysfs / "class" / "powercap")) {
    if (!begins_with(zone.filename(), "intel-rapl:")) continue;
    const std::string name = line_of(zone / "name");
    if (!begins_with(name, "package") && name != "dram") continue;
    const fs::path file = zone / "energy_uj";
    const std::optional<uint64_t> first = number_in(file);
    if (!first) {
      const bool forbidden = errno == EACCES || errno == EPERM;
      found.problems.push_back(file.string() + (forbidden ? " may not be read (as root: chmod a+r)"
                                                          : " holds no number"));
      continue;
    }
    const uint64_t range = number_in(zone / "max_energy_range_uj").value_or(0);
    found.sensors.push_back(
        std::make_unique<Counter>([file] { return number_in(file); }, *first, range, 1e-6));
    found.names.push_back(name);
  }
  return found;
}

/// A rail of an INA chip: its label and how to read its power.
struct Rail {
  std::string label;
  Gauge::Read watts;
};

std::vector<Rail> hwmon_rails(const fs::path& chip) {
  std::vector<Rail> rails;
  for (int i = 1; i <= 8; ++i) {
    const std::string n = std::to_string(i);
    const std::string label = line_of(chip / ("in" + n + "_label"));
    const fs::path power = chip / ("power" + n + "_input");
    const fs::path millivolts = chip / ("in" + n + "_input"),
                   milliamperes = chip / ("curr" + n + "_input");
    if (number_in(power)) {
      rails.push_back({label.empty() ? "power" + n : label, [power]() -> std::optional<double> {
                         const auto microwatts = number_in(power);
                         if (!microwatts) return std::nullopt;
                         return 1e-6 * static_cast<double>(*microwatts);
                       }});
    } else if (!label.empty() && number_in(millivolts) && number_in(milliamperes)) {
      rails.push_back({label, [millivolts, milliamperes]() -> std::optional<double> {
                         const auto volts = number_in(millivolts),
                                    amperes = number_in(milliamperes);
                         if (!volts || !amperes) return std::nullopt;
                         return 1e-6 * static_cast<double>(*volts) * static_cast<double>(*amperes);
                       }});
    }
  }
  return rails;
}

std::vector<Rail> iio_rails(const fs::path& chip) {
  std::vector<Rail> rails;
  for (int i = 0; i < 8; ++i) {
    const std::string n = std::to_string(i);
    const std::string label = line_of(chip / ("rail_name_" + n));
    const fs::path power = chip / ("in_power" + n + "_input");
    if (label.empty() || !number_in(power)) continue;
    rails.push_back({label, [power]() -> std::optional<double> {
                       const auto milliwatts = number_in(power);
                       if (!milliwatts) return std::nullopt;
                       return 1e-3 * static_cast<double>(*milliwatts);
                     }});
  }
  return rails;
}

Found find_ina(const fs::path& sysfs, double now) {
  std::vector<Rail> rails;
  const auto look = [&](const fs::path& folder, std::vector<Rail> (*rails_of)(const fs::path&)) {
    for (const fs::path& chip : entries(folder)) {
      if (!begins_with(line_of(chip / "name"), "ina")) continue;
      for (Rail& rail : rails_of(chip)) rails.push_back(std::move(rail));
    }
  };
  look(sysfs / "class" / "hwmon", hwmon_rails);
  if (rails.empty()) look(sysfs / "bus" / "iio" / "devices", iio_rails);
  // Of the whole board: what comes in, of which the other rails are parts.
  const std::vector<std::string> inputs{"VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "5V_IN"};
  const auto whole = std::find_if(rails.begin(), rails.end(), [&](const Rail& rail) {
    return std::find(inputs.begin(), inputs.end(), rail.label) != inputs.end();
  });
  if (whole != rails.end()) {
    Rail only = std::move(*whole);
    rails.clear();
    rails.push_back(std::move(only));
  }
  Found found;
  for (Rail& rail : rails) {
    const std::optional<double> first = rail.watts();
    if (!first) continue;
    found.sensors.push_back(std::make_unique<Gauge>(std::move(rail.watts), *first, now));
    found.names.push_back(rail.label);
  }
  return found;
}

/// CUDA_VISIBLE_DEVICES, entry by entry, up to the first that is none; nullopt: all devices.
std::optional<std::vector<std::string>> visible_devices() {
  const char* list = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!list) return std::nullopt;
  std::vector<std::string> devices;
  std::istringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) devices.push_back(item);
  return devices;
}

Found find_nvml(const std::string& library) {
  Found found;
  if (library.empty()) return found;
  void* nvml = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays: its functions are kept
  if (!nvml) return found;
  using Device = void*;
  const auto function = [&](auto& pointer, const char* name) {
    pointer = reinterpret_cast<std::decay_t<decltype(pointer)>>(dlsym(nvml, name));
    return pointer != nullptr;
  };
  int (*init)() = nullptr;
  int (*count_of)(unsigned*) = nullptr;
  int (*by_index)(unsigned, Device*) = nullptr;
  int (*by_uuid)(const char*, Device*) = nullptr;
  int (*name_of)(Device, char*, unsigned) = nullptr;
  int (*energy_of)(Device, unsigned long long*) = nullptr;
  if (!function(init, "nvmlInit_v2") || !function(count_of, "nvmlDeviceGetCount_v2") ||
      !function(by_index, "nvmlDeviceGetHandleByIndex_v2") ||
      !function(by_uuid, "nvmlDeviceGetHandleByUUID") || !function(name_of, "nvmlDeviceGetName") ||
      !function(energy_of, "nvmlDeviceGetTotalEnergyConsumption") || init() != 0) {
    found.problems.push_back(library + " does not answer");
    return found;
  }
  std::vector<Device> devices;
  // False: there is no such device.
  const auto add = [&](const std::function<int(Device*)>& find) {
    Device device = nullptr;
    if (find(&device) != 0) return false;
    devices.push_back(device);
    return true;
  };
  if (const auto visible = visible_devices()) {
    for (const std::string& item : *visible) {
      const auto index = parse_number<unsigned>(item);
      const auto find = [&](Device* device) {
        return index ? by_index(*index, device) : by_uuid(item.c_str(), device);
      };
      if (!add(find)) break;
    }
  } else {
    unsigned count = 0;
    if (count_of(&count) != 0) count = 0;
    for (unsigned i = 0; i < count; ++i) add([&](Device* device) { return by_index(i, device); });
  }
  for (const Device device : devices) {
    const auto millijoules = [energy_of, device]() -> std::optional<uint64_t> {
      unsigned long long value = 0;
      if (energy_of(device, &value) != 0) return std::nullopt;
      return value;
    };
    char name[96] = "GPU";
    name_of(device, name, sizeof name - 1);
    const std::optional<uint64_t> first = millijoules();
    if (!first) {
      found.problems.push_back(std::string(name) + " does not count its energy");
      continue;
    }
    found.sensors.push_back(std::make_unique<Counter>(millijoules, *first, 0, 1e-3));
    found.names.emplace_back(name);
  }
  return found;
}

}  // namespace

EnergyMeter::EnergyMeter(const Options& options) {
  std::vector<std::string> problems;
  const auto take = [&](const char* kind, Found found) {
    problems.insert(problems.end(), found.problems.begin(), found.problems.end());
    if (found.sensors.empty()) return;
    source_ += (source_.empty() ? "" : "; ") + std::string(kind) + " " + join(found.names);
    for (auto& sensor : found.sensors) sensors_.push_back(std::move(sensor));
  };
  Found rapl = find_rapl(options.sysfs);
  // A part of the packages would pass for all of them.
  if (!rapl.problems.empty()) rapl.sensors.clear();
  take("RAPL", std::move(rapl));
  take("INA", find_ina(options.sysfs, options.now));
  take("NVML", find_nvml(options.nvml));
  if (sensors_.empty()) source_ = "none: no RAPL, NVML or INA sensor found";
  if (sensors_.empty() && !problems.empty()) source_ = "none: " + join(problems);
  if (!sensors_.empty() && !problems.empty()) source_ += "; without: " + join(problems);
}

double EnergyMeter::joules(double now) {
  double sum = sensors_.empty() ? kUnknown : 0;
  for (const auto& sensor : sensors_) sum += sensor->joules(now);
  return sum;
}

}  // namespace rep
