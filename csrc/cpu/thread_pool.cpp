#include "thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace twostage {
namespace {

class ThreadPool {
  public:
    bool try_run(std::int64_t items, int helpers, const std::function<void(std::int64_t)>& work) {
        std::unique_lock<std::mutex> call(call_, std::try_to_lock);
        if (!call.owns_lock()) return false;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            start_threads(helpers);
            work_ = &work;
            items_ = items;
            next_.store(0, std::memory_order_relaxed);
            failure_ = nullptr;
            wanted_ = helpers < started_ ? helpers : started_;
            running_ = wanted_;
            ++generation_;
        }
        wake_.notify_all();
        take_items();
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [&] { return running_ == 0; });
        if (failure_) std::rethrow_exception(failure_);
        return true;
    }

  private:
    void start_threads(int wanted) {
        try {
            for (; started_ < wanted; ++started_)
                std::thread([this, index = started_, seen = generation_] { serve(index, seen); }).detach();
        } catch (const std::system_error&) {
            // The system gives no more threads: those there are do the work.
        }
    }

    void serve(int index, std::uint64_t seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen; });
            seen = generation_;
            if (index >= wanted_) continue;
            lock.unlock();
            take_items();
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    void take_items() {
        try {
            for (std::int64_t item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < items_;) (*work_)(item);
        } catch (...) {
            next_.store(items_, std::memory_order_relaxed);
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!failure_) failure_ = std::current_exception();
        }
    }

    std::mutex call_;   // held by the call that uses the pool
    std::mutex mutex_;  // guards what follows
    std::condition_variable wake_, done_;
    int started_ = 0, wanted_ = 0, running_ = 0;
    std::uint64_t generation_ = 0;
    std::exception_ptr failure_;
    const std::function<void(std::int64_t)>* work_ = nullptr;
    std::int64_t items_ = 0;
    std::atomic<std::int64_t> next_{0};
};

// Never destroyed: its threads live until the process ends. A forked child has none of them and starts anew.
ThreadPool* pool = nullptr;
std::once_flag pool_once;

ThreadPool& shared_pool() {
    std::call_once(pool_once, [] {
        pool = new ThreadPool;
        pthread_atfork(nullptr, nullptr, [] { pool = new ThreadPool; });
    });
    return *pool;
}

}  // namespace

void parallel_for(std::int64_t items, int threads, const std::function<void(std::int64_t)>& work) {
    const std::int64_t helpers = (threads < items ? threads : items) - 1;
    if (helpers > 0 && shared_pool().try_run(items, static_cast<int>(helpers), work)) return;
    for (std::int64_t item = 0; item < items; ++item) work(item);
}

}  // namespace twostage
