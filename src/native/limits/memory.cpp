#include "limits/memory.h"

#include "kernel/lines.h"
#include "limits/groups.h"

namespace pht {

namespace {

constexpr u64 kNone = sys::kUnlimited;
constexpr u64 kForOne = 16, kOfMachine = 4;
void read_own_limits(MemoryRoom *out) {
    const u64 addresses = sys::resource_limit(RLIMIT_AS, kNone);
    const u64 data = sys::resource_limit(RLIMIT_DATA, kNone);
    if (addresses == kNone && data == kNone) return;
    u64 used[2];
    if (!used_addresses(&used[0], &used[1]))
        out->known = {Status::memory_limit, Call::read, EIO};
    else if (addresses != kNone)
        out->addresses = less(addresses, used[0]);
    if (data != kNone) out->data = less(data, used[1]);
}

// How much could be read: nothing where that failed, as after opening. Inlined as system calls are.
[[gnu::always_inline]] inline size_t read_some(const Descriptor &fd, char *to, size_t size) {
    if (!fd.ok()) return 0;
    const auto got = sys::read(fd, to, size);
    return got.ok() ? got.value() : 0;
}

u64 machine_memory() {
    const Descriptor fd(sys::open("/proc/meminfo"));
    char text[64] = {};  // MemTotal comes first
    const size_t size = read_some(fd, text, sizeof text);
    u64 kib;
    return read_field({text, size}, "MemTotal:", &kib) ? kib * 1024 : kNone;
}

u64 patience = 50'000'000;  // nanoseconds, what this process has left

}  // namespace

bool used_addresses(u64 *addresses, u64 *data) {
    // Pages: addresses, resident, shared, text, 0, data; see proc_pid_statm(5).
    u64 pages[6] = {};
    const Descriptor fd(sys::open("/proc/self/statm"));
    char text[160] = {};
    Cursor cursor{text, text + read_some(fd, text, sizeof text)};
    for (u64 &number : pages) {
        number = cursor.number(10);
        cursor.blanks();
    }
    *addresses = pages[0] * kPageSize;
    *data = pages[5] * kPageSize;
    return cursor.ok;
}

void memory_room(MemoryRoom *out, int *stat) {
    *out = {};
    if (stat) *stat = -1;
    read_groups(out, stat);
    read_own_limits(out);
}

u64 private_allowance(const MemoryRoom &room, Backing backing, u64 configured, u64 own) {
    if (!room.known.ok()) return 0;
    u64 allowed = min(less(configured, own), room.together);
    u64 free = min(room.free, room.addresses);
    // A memory file is never mapped writable.
    if (backing != Backing::memfd) free = min(free, room.data);
    if (free != kNone) allowed = min(allowed, less((free + own) / kForOne, own));
    return allowed;
}

u64 shared_allowance(const MemoryRoom &room, u64 configured, u64 present) {
    u64 most = min(configured, machine_memory() / kOfMachine);
    if (room.limit != kNone) most = min(most, room.limit / kForAll);
    u64 more = room.known.ok() ? room.together : 0;
    if (room.free != kNone) more = min(more, room.free / kForOne);
    return more == kNone ? most : min(most, present + more);
}

MemoryTurn::~MemoryTurn() {
    if (stat_ < 0) return;
    // A process forked past the engine may hold the same open file.
    if (locked_) sys::unlock_file(stat_);
    sys::close(stat_);
}

Outcome MemoryTurn::wait() {
    constexpr u64 kPause = 500'000;
    for (;;) {
        const auto result = sys::try_lock_file(stat_);
        locked_ = result.ok();
        if (locked_) return done();
        if (result.error() != EAGAIN || __atomic_load_n(&patience, __ATOMIC_RELAXED) == 0)
            return {Status::memory_limit, Call::lock, result.error()};
        const u64 began = sys::now();
        // A signal is the program's: it does not wait for others' memory.
        if (sys::pause(kPause).error() == EINTR) return {Status::memory_limit, Call::lock, EINTR};
        const u64 waited = max(sys::since(began), kPause);
        const u64 left = __atomic_load_n(&patience, __ATOMIC_RELAXED);
        __atomic_store_n(&patience, less(left, waited), __ATOMIC_RELAXED);
    }
}

template <class Allowance> Outcome MemoryTurn::take(u64 bytes, Allowance allowance) {
    MemoryRoom room;
    memory_room(&room, &stat_);
    const auto judge = [&]() -> Outcome {
        if (!room.known.ok()) return room.known;
        if (allowance(room) < bytes) return {Status::memory_limit, Call::none, 0};
        return done();
    };
    Outcome outcome = judge();
    // Without a group's limit there is nobody to share with.
    if (!outcome.ok() || stat_ < 0) return outcome;
    if (outcome = wait(); !outcome.ok()) return outcome;
    memory_room(&room);
    return judge();
}

Outcome MemoryTurn::take_private(Backing backing, u64 bytes, u64 configured, u64 own) {
    return take(bytes, [&](const MemoryRoom &room) {
        return private_allowance(room, backing, configured, own);
    });
}

Outcome MemoryTurn::take_shared(u64 bytes, u64 configured, u64 present) {
    return take(bytes, [&](const MemoryRoom &room) {
        return less(shared_allowance(room, configured, present), present);
    });
}

}  // namespace pht
