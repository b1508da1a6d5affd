// Threads that wait between calls.
#pragma once

#include <cstdint>
#include <functional>

namespace twostage {

// work(item) for every item below `items`, on the calling thread and up to threads - 1 others, in any order. Returns
// when all are done; the first exception is thrown again here. A call during another call of the process runs on its
// own thread alone. Safe after fork.
void parallel_for(std::int64_t items, int threads, const std::function<void(std::int64_t)>& work);

}  // namespace twostage
