#include "thread_pool.h"

#include <pthread.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

namespace twostage {
namespace {

class ThreadPool {
  public:
    void run(int helpers, const std::function<void()>& body) {
        std::unique_lock<std::mutex> call(call_, std::try_to_lock);
        if (!call.owns_lock()) return body();
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            start_threads(helpers);
            body_ = &body;
            wanted_ = helpers < started_ ? helpers : started_;
            running_ = wanted_;
            ++generation_;
        }
        wake_.notify_all();
        body();
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [&] { return running_ == 0; });
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
            (*body_)();
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    std::mutex call_;   // held by the call that uses the pool
    std::mutex mutex_;  // guards what follows
    std::condition_variable wake_, done_;
    int started_ = 0, wanted_ = 0, running_ = 0;
    std::uint64_t generation_ = 0;
    const std::function<void()>* body_ = nullptr;
};

// Never destroyed: its threads live until the process ends. A forked child has none of them and starts anew.
ThreadPool* pool = nullptr;
std::once_flag pool_once;

}  // namespace

void run_on_pool(int helpers, const std::function<void()>& body) {
    std::call_once(pool_once, [] {
        pool = new ThreadPool;
        pthread_atfork(nullptr, nullptr, [] { pool = new ThreadPool; });
    });
    pool->run(helpers, body);
}

}  // namespace twostage
