// Work shared among threads.
#pragma once

#include <cstdint>
#include <functional>

namespace twostage {

// How many threads the caller may use, and how many the work is worth: waking one costs some microseconds.
struct Threads {
    int available;
    std::int64_t useful;
};

// work(item) for every item below `items`, on the calling thread and others, in any order. Returns when all are done;
// the first exception is thrown again here. Safe after fork.
void parallel_for(std::int64_t items, Threads threads, const std::function<void(std::int64_t)>& work);

// OpenMP's entry for a parallel region: body(data) on every thread of a team, the calling one among them.
using StartTeam = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// From now on work runs on the teams that `start` starts; with null on threads of our own. The host program's own
// teams serve best: after a region their threads spin for a while, which takes the processors from everybody else's,
// and leaves them ready for the next region.
void use_teams(StartTeam start);

}  // namespace twostage
