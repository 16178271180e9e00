// How long a process is kept waiting by what is built.
#pragma once

#include "words/request.h"

namespace pht {

// Until when a program's start may be kept waiting. However short that is, a chunk is added each
// time: what takes many starts comes to its end.
struct Deadline {
    u64 at = ~0ull;                      // nanoseconds, as sys::now()
    bool moved = false, urgent = false;  // whether anything was added; something urgent
    bool with_rest = true;               // what is not urgent too

    bool is_past() const { return sys::now() >= at; }
    bool is_over() const { return moved && is_past(); }
};

// When this process's next building has to end, from now on; and what came of it.
void begin_to_build(const Request &request, Deadline *deadline);
void end_to_build(const Deadline &deadline);

// Whether there is time for another chunk, or nothing was built by this process yet; and what else
// was done for the sake of what is built, in nanoseconds, which takes of that time.
bool has_time(const Request &request);
// Whether the last building ended for want of time, of which there is to be more.
bool will_have_time(const Request &request);
u64 time_left(const Request &request);
u64 time_for_copies(const Request &request);
void spend_time(u64 nanoseconds);

// In a forked child, whose processor time begins anew: a worker that loads what its parent did not
// builds it as any other process does.
void forget_time();

}  // namespace pht
