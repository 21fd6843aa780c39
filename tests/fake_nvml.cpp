// The part of NVML that tensor/energy.cpp calls, for a machine with three GPUs that are none.
#include <cstdio>
#include <cstring>

namespace {

unsigned long long g_millijoules[]{5000, 7000};
int g_devices[3];
constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3;

}  // namespace

extern "C" {

int nvmlInit_v2();
int nvmlDeviceGetCount_v2(unsigned* count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device);
int nvmlDeviceGetHandleByUUID(const char* uuid, void** device);
int nvmlDeviceGetName(void* device, char* name, unsigned length);
int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* energy);

int nvmlInit_v2() { return kSuccess; }

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 3;
  return kSuccess;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (index > 2) return kInvalidArgument;
  *device = &g_devices[index];
  return kSuccess;
}

int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  if (std::strcmp(uuid, "GPU-fake-0") != 0) return kInvalidArgument;
  return nvmlDeviceGetHandleByIndex_v2(0, device);
}

int nvmlDeviceGetName(void* device, char* name, unsigned length) {
  std::snprintf(name, length, "Fake %d", static_cast<int>(static_cast<int*>(device) - g_devices));
  return kSuccess;
}

int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* energy) {
  const auto index = static_cast<int*>(device) - g_devices;
  if (index > 1) return kNotSupported;
  *energy = g_millijoules[index];
  g_millijoules[index] += index == 0 ? 1000 : 100000;
  return kSuccess;
}

}  // extern "C"
