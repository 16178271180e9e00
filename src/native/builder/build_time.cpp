#include "builder/build_time.h"

namespace pht {

namespace {

// Of the processor time that the process has taken so far, the share that building may add to it;
// the least and the most of it, in nanoseconds.
constexpr u64 kShare = 10, kLeastTime = 20'000'000, kMostTime = 250'000'000;
constexpr u64 kChunk = 4'000'000;           // what one takes on a slow machine
constexpr u64 kNoLimitOfTime = ~0ull >> 2;  // as good as unlimited

u64 spent;           // nanoseconds that this process has built; asked from any thread
u64 began;           // when it began to do so now: one thread at a time
bool moved, urgent;  // whether it got anywhere; whether it added what is urgent
bool ran_out;        // whether it ended for want of time

u64 allowed_time(const Request &request) {
    if (request.build_time != kAutomaticTime) return request.build_time;
    return min(max(sys::processor_time() / kShare, kLeastTime), kMostTime);
}

}  // namespace

void begin_to_build(const Request &request, Deadline *deadline) {
    began = sys::now();
    deadline->at = ~0ull;
    if (allowed_time(request) < kNoLimitOfTime) deadline->at = began + time_left(request);
    deadline->moved = moved;
    deadline->urgent = urgent;
}

void end_to_build(const Deadline &deadline) {
    __atomic_store_n(&moved, deadline.moved, __ATOMIC_RELAXED);
    urgent = deadline.urgent;
    __atomic_store_n(&ran_out, deadline.is_past(), __ATOMIC_RELAXED);
    spend_time(sys::since(began));
}

bool has_time(const Request &request) {
    return !__atomic_load_n(&moved, __ATOMIC_RELAXED) || time_left(request) >= kChunk;
}

bool will_have_time(const Request &request) {
    const u64 most = request.build_time == kAutomaticTime ? kMostTime : request.build_time;
    return __atomic_load_n(&ran_out, __ATOMIC_RELAXED) &&
           __atomic_load_n(&spent, __ATOMIC_RELAXED) + kChunk <= most;
}

u64 time_left(const Request &request) {
    const u64 allowed = allowed_time(request);
    return allowed - min(__atomic_load_n(&spent, __ATOMIC_RELAXED), allowed);
}

u64 time_for_copies(const Request &request) {
    const u64 left = time_left(request);
    if (!request.frugal || request.build_time != kAutomaticTime) return left;
    return min(left, sys::processor_time() / kShare);
}

void spend_time(u64 nanoseconds) {
    __atomic_fetch_add(&spent, nanoseconds, __ATOMIC_RELAXED);
}

void forget_time() {
    spent = began = 0;
    moved = urgent = ran_out = false;
}

}  // namespace pht
