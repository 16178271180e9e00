#include "text/displace.h"

#include "kernel/scratch.h"
#include "text/build.h"

namespace pht {

namespace {

// Below that it is not worth a mapping more.
constexpr u64 kWorthwhile = 16 << 20;

// In place of an address that something was moved away from.
constexpr u64 kWitness = ~0ull;

bool unlimited_addresses() {
    return sys::resource_limit(RLIMIT_AS, 0) == sys::kUnlimited;
}

// Of locked memory (mlock(2)) the kernel would lock what was moved away, too. MADV_COLD says so,
// and only ages a page otherwise.
bool is_locked(u64 address) {
    return !sys::madvise(address, kPageSize, MADV_COLD).ok();
}

// Once it failed it is not tried again. Linux 5.7 to 5.12 unmap the place first and refuse the file
// then: another thread's memory may be there now, so nothing is unmapped. Where the kernel refused
// before, as others do, the reservation stays: addresses, and no memory.
bool refuses;

bool move_away(Displaced *one) {
    if (refuses || is_locked(one->start)) return false;
    const auto reserved = reserve_scratch(one->length);
    if (!reserved.ok()) return false;
    one->address = reserved.value();
    if (!sys::mremap_away(one->start, one->length, one->address).ok()) {
        refuses = true;
        return false;
    }
    // A core dump needs it as little; and this tells the status command what it is.
    (void)sys::madvise(one->address, one->length, MADV_DONTDUMP);
    return true;
}

void move_back(Displaced *one) {
    if (!sys::mremap_onto(one->address, one->length, one->start).ok())
        discard(one->address, one->length);
    one->length = 0;
}

}  // namespace

void displace(Region &region, u64 from, u64 to) {
    if (to - from < kWorthwhile || !unlimited_addresses()) return;
    for (const Extent &extent : region.extents) {
        if (extent.kind != Extent::Kind::text || extent.filler) continue;
        // Page tables move whole only from one 2 MiB boundary to another.
        const u64 start = max(round_up(extent.start, kHugeSize), from);
        const u64 end = min(round_down(extent.end, kHugeSize), to);
        if (start >= end || end - start < kWorthwhile) continue;
        Displaced one = {0, start, end - start};
        if (move_away(&one) && !region.displaced.push(one)) move_back(&one);
    }
}

void leave_witness(Region &region, int fd) {
    // Who asks for an executable looks at /proc/PID/exe.
    if (region.object.is_main) return;
    u64 bytes = 0;
    for (const HugePage &page : region.pages) {
        if (page.text && !page.ready) return;
        bytes += page.ready ? kHugeSize : 0;
    }
    if (bytes >= kWorthwhile) return;  // retire() leaves more
    for (const Displaced &one : region.displaced)
        if (one.start == kWitness) return;
    const Extent *last = nullptr;
    for (const Extent &extent : region.extents)
        if (extent.kind == Extent::Kind::text && !extent.filler) last = &extent;
    if (!last) return;
    const u64 offset = last->offset + (round_down(last->end - 1, kPageSize) - last->start);
    const auto got = sys::mmap(0, kPageSize, region.text_protection(), MAP_PRIVATE, fd, offset);
    if (!got.ok()) return;
    const Displaced one = {got.value(), kWitness, kPageSize};
    // Tools take the first mapping under a library's name for where it begins.
    if (one.address < region.object.low || !region.displaced.push(one))
        discard(one.address, one.length);
    else
        (void)sys::madvise(one.address, one.length, MADV_DONTDUMP);
}

void bring_back(Region &region, u64 from, u64 to) {
    for (Displaced &one : region.displaced)
        if (from <= one.start && one.start < to) move_back(&one);
}

void discard_displaced(Region &region) {
    for (const Displaced &one : region.displaced) discard(one.address, one.length);
    region.displaced.clear();
}

}  // namespace pht
