#include "threads.h"

#include <pthread.h>

#include <atomic>
#include <exception>
#include <mutex>

#include "thread_pool.h"

namespace twostage {
namespace {

// Items that threads take one after another until none is left.
class Items {
  public:
    Items(std::int64_t count, const std::function<void(std::int64_t)>& work) : count_(count), work_(work) {}

    void take_all() {
        try {
            for (std::int64_t item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) work_(item);
        } catch (...) {
            next_.store(count_, std::memory_order_relaxed);
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!failure_) failure_ = std::current_exception();
        }
    }

    void throw_failure() const {
        if (failure_) std::rethrow_exception(failure_);
    }

  private:
    const std::int64_t count_;
    const std::function<void(std::int64_t)>& work_;
    std::atomic<std::int64_t> next_{0};
    std::mutex mutex_;  // guards what follows
    std::exception_ptr failure_;
};

std::atomic<StartTeam> start_team{nullptr};
std::once_flag fork_once;

}  // namespace

void use_teams(StartTeam start) {
    start_team.store(start);
    // In a forked child the threads of the parent's teams are missing, and OpenMP would wait for them for ever.
    std::call_once(fork_once, [] { pthread_atfork(nullptr, nullptr, [] { start_team.store(nullptr); }); });
}

void parallel_for(std::int64_t items, Threads threads, const std::function<void(std::int64_t)>& work) {
    std::int64_t taking_part = threads.available;
    for (const std::int64_t limit : {items, threads.useful})
        if (taking_part > limit) taking_part = limit;
    if (taking_part < 2) {
        for (std::int64_t item = 0; item < items; ++item) work(item);
        return;
    }
    Items shared(items, work);
    if (const StartTeam start = start_team.load())
        // The whole team: OpenMP ends the threads that a smaller one has no place for, and starts them again later.
        start([](void* data) { static_cast<Items*>(data)->take_all(); }, &shared,
              static_cast<unsigned>(threads.available), 0);
    else
        run_on_pool(static_cast<int>(taking_part) - 1, [&] { shared.take_all(); });
    shared.throw_failure();
}

}  // namespace twostage
