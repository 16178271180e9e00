#include "builder/build_time.h"

namespace pht {

namespace {

// Of the processor time that the process has taken so far, the share that building may add to it;
// the least and the most of it, in nanoseconds.
constexpr u64 kShare = 10, kLeastTime = 20'000'000, kMostTime = 250'000'000;
constexpr u64 kNoLimitOfTime = ~0ull >> 2;  // as good as unlimited

u64 spent, began;    // nanoseconds that this process has built; when it began to do so now
bool moved, urgent;  // whether it got anywhere; whether it added what is urgent

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
    moved = deadline.moved;
    urgent = deadline.urgent;
    spend_time(sys::since(began));
}

bool has_time(const Request &request) {
    constexpr u64 kChunk = 4'000'000;  // nanoseconds, on a slow machine
    return !moved || time_left(request) >= kChunk;
}

u64 time_left(const Request &request) {
    const u64 allowed = allowed_time(request);
    return allowed - min(spent, allowed);
}

void spend_time(u64 nanoseconds) {
    spent += nanoseconds;
}

}  // namespace pht
