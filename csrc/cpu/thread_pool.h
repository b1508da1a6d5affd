// Threads that wait between calls.
#pragma once

#include <functional>

namespace twostage {

// `body` on the calling thread and on up to `helpers` others; it may not throw. Returns when all are done. A call
// during another call of the process runs on its own thread alone. Safe after fork.
void run_on_pool(int helpers, const std::function<void()>& body);

}  // namespace twostage
