#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace rep {

/// Threads that wait for work to share.
class Workers {
 public:
  /// `threads`, of which the one that calls for_each() is one.
  explicit Workers(int64_t threads);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// Calls `work` with every number of [0, n), each once, in whatever order, and returns when all
  /// are done. The first exception ends it early and is thrown here.
  void for_each(int64_t n, const std::function<void(int64_t)>& work);

 private:
  void wait_for_work();
  void take_part();

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  const std::function<void(int64_t)>* work_ = nullptr;
  int64_t next_ = 0, end_ = 0;
  int64_t rounds_ = 0;  // calls of for_each()
  int64_t busy_ = 0;    // threads at work on this one
  std::exception_ptr error_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

/// The same, once, by as many threads as are of use.
void parallel_for(int64_t n, int64_t threads, const std::function<void(int64_t)>& work);

}  // namespace rep
