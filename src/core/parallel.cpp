#include "core/parallel.h"

#include <algorithm>
#include <system_error>

namespace rep {

Workers::Workers(int64_t threads) {
  for (int64_t i = 1; i < threads; ++i) {
    try {
      threads_.emplace_back([this] { wait_for_work(); });
    } catch (const std::system_error&) {
      break;  // no more are to be had; fewer do the same
    }
  }
}

Workers::~Workers() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::for_each(int64_t n, const std::function<void(int64_t)>& work) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = &work;
    next_ = 0;
    end_ = n;
    error_ = nullptr;
    ++rounds_;
  }
  changed_.notify_all();
  take_part();
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return busy_ == 0; });
  work_ = nullptr;
  if (error_) std::rethrow_exception(error_);
}

void Workers::wait_for_work() {
  int64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || rounds_ != seen; });
    if (stopping_) return;
    seen = rounds_;
    lock.unlock();
    take_part();
    lock.lock();
  }
}

void Workers::take_part() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (work_ && next_ < end_) {
    const int64_t i = next_++;
    const auto& work = *work_;
    ++busy_;
    lock.unlock();
    std::exception_ptr error;
    try {
      work(i);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    --busy_;
    if (!error) continue;
    if (!error_) error_ = error;
    next_ = end_;  // what nobody has begun
  }
  if (busy_ == 0) changed_.notify_all();
}

void parallel_for(int64_t n, int64_t threads, const std::function<void(int64_t)>& work) {
  Workers(std::min(threads, n)).for_each(n, work);
}

}  // namespace rep
