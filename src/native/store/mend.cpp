#include "store/mend.h"

#include "kernel/scratch.h"
#include "limits/memory.h"
#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr Outcome small_copy = {Status::small_copy, Call::none, 0};

// Of a group or a limit with less than that left no 2 MiB are taken, if only for a moment.
constexpr u64 kAmpleRoom = 64ul << 20;

// So many pages are looked at, besides the first, where nothing is in doubt.
constexpr size_t kOthers = 4;

constexpr u64 kTick = 500'000;  // nanoseconds between two looks at what is being written

constexpr u64 kLately = 600;  // seconds

bool is_unpacked_lately(int copy) {
    sys::FileIdentity file;
    const u64 now = sys::wall_seconds();
    return sys::identify(copy, &file).ok() && now >= file.ctime && now - file.ctime < kLately;
}

void forget(u64 address, u64 length) {
    (void)sys::madvise(address, length, MADV_DONTNEED);
}

}  // namespace

// What look() works on.
struct Mender::Run {
    const Region &region;
    const Copy &copy;
    const Pagemap &pagemap;
    u64 offset, target, address;
    size_t count;
    u8 *used;   // 1: by this process
    u8 *marks;  // as of find_entries(), of what was touched
    u8 *left;
    Outcome *why;

    u64 at(size_t i) const { return address + i * kHugeSize; }
    u64 offset_of(size_t i) const { return offset + i * kHugeSize; }
    // The pages of the region from `target` on.
    bool find_used() const {
        if (!pagemap.find_entries(target, count, used).ok()) return false;
        for (size_t i = 0; i < count; ++i)
            used[i] = used[i] != kNothing || region.was_used(target + i * kHugeSize);
        return true;
    }
    ErrorOr<void> find() const { return pagemap.find_entries(address, count, marks); }
};

Cached Mender::cached(int copy, u64 offset, u64 length) {
    // A filter may kill for a call as new as this one (Linux 6.5).
    if (may_ask_ == Answer::unknown) {
        const auto mode = sys::seccomp_mode();
        may_ask_ = mode.ok() && mode.value() == 0 ? Answer::yes : Answer::no;
    }
    Cached out;
    if (may_ask_ == Answer::no) return out;
    sys::CachedPages pages;
    const auto counted = sys::count_cached(copy, offset, length, &pages);
    if (!counted.ok()) {
        may_ask_ = Answer::no;
        return out;
    }
    if (!pages.cached && is_stacked(copy)) return out;
    return {true, pages.cached, pages.dirty + pages.written_back, pages.evicted};
}

// Where huge pages are disabled for this process, what it sees says nothing of the page cache.
bool Mender::may_mend() {
    if (may_mend_ == Answer::unknown) {
        const auto disabled = sys::huge_pages_disabled();
        may_mend_ = disabled.ok() && disabled.value() ? Answer::no : Answer::yes;
    }
    return may_mend_ == Answer::yes;
}

// Readahead takes 2 MiB that are free, and does not move others' pages for them; a fault in
// anonymous memory that asks for a huge page does. What that got is free afterwards.
bool Mender::make_room(const Pagemap &pagemap) {
    if (has_room_ == Answer::unknown) {
        MemoryRoom room;
        memory_room(&room);
        const bool ample = room.known.ok() && room.free >= kAmpleRoom &&
                           room.addresses >= kAmpleRoom && room.data >= kAmpleRoom;
        has_room_ = ample ? Answer::yes : Answer::no;
    }
    if (has_room_ == Answer::no) return false;
    Scratch scratch(kHugeSize);
    if (!scratch.reserve().ok()) return false;
    const auto mapped = sys::mmap(scratch.address(), kHugeSize, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (!mapped.ok()) {
        scratch.hand_on();
        return false;
    }
    u8 mark = kNothing;
    return sys::madvise(scratch.address(), kHugeSize, MADV_HUGEPAGE).ok() &&
           sys::madvise(scratch.address(), kPageSize, MADV_POPULATE_WRITE).ok() &&
           pagemap.find_entries(scratch.address(), 1, &mark).ok() && mark == kOneEntry;
}

Outcome Mender::write_back(const Copy &copy, u64 offset, u64 length) {
    begin();
    const auto started = sys::start_writing(copy.fd, offset, length);
    if (!started.ok()) return {Status::small_copy, Call::sync, started.error()};
    for (;;) {
        const Cached now = cached(copy.fd, offset, length);
        if (!now.known || now.unwritten == 0) break;
        if (is_over() || sys::pause(kTick).error() == EINTR) return small_copy;
    }
    // Once pages are dropped nobody sees any more that all of it was written.
    if (copy.index >= 0) return check_written(copy.index, copy.name, copy.fd);
    const auto awaited = sys::await_written(copy.fd);
    if (awaited.ok()) return done();
    sys::FileIdentity file;
    // What was not written is gone once it is dropped.
    if (!tells_nothing(awaited.error()) && sys::identify(copy.fd, &file).ok()) {
        mark_lost(copy.fd, file);
        return bad_entry(Status::damaged);
    }
    return {Status::small_copy, Call::sync, awaited.error()};
}

Outcome Mender::drop(int copy, u64 offset, u64 address, bool *seen) {
    begin();
    if (gives_up()) return small_copy;
    forget(address, kHugeSize);
    const auto dropped = sys::drop_cached(copy, offset, kHugeSize);
    if (!dropped.ok()) return {Status::small_copy, Call::fadvise, dropped.error()};
    const Cached rest = cached(copy, offset, kHugeSize);
    *seen = rest.known;
    if (!rest.known || !rest.pages) return done();
    ++busy_;
    return small_copy;
}

// 2 MiB that are clean, as far as is known: where one was not collapsed no other one is tried. Of
// them something is in the page table.
bool Mender::collapse_page(const Pagemap &pagemap, u64 address) {
    if (collapses_ == Answer::no) return false;
    begin();
    const bool done = collapse(address, kHugeSize).ok() && touch(address, kPageSize).ok() &&
                      pagemap.huge_bytes(address, kHugeSize) == kHugeSize;
    if (collapses_ == Answer::unknown) collapses_ = done ? Answer::yes : Answer::no;
    return done;
}

Outcome Mender::mend(int copy, const Pagemap &pagemap, u64 offset, u64 address) {
    if (collapse_page(pagemap, address)) return done();
    bool seen;
    const Outcome dropped = drop(copy, offset, address, &seen);
    if (!dropped.ok()) return dropped;
    // Without time for it, it comes at its first use, and mostly huge.
    if (is_over() && seen) return done();
    if (!is_over()) cramped_ = !make_room(pagemap);
    const auto touched = touch(address, kHugeSize);
    if (!touched.ok()) return refused(Call::read, touched);
    u8 mark = kNothing;
    if (!pagemap.find_entries(address, 1, &mark).ok() || mark == kOneEntry) return done();
    // With room, and nobody else's: then this file system does not give any.
    if (seen && !cramped_) return {Status::no_huge_page, Call::none, 0};
    return small_copy;
}

// Of all that is cached: what is small and in use is mended, what is small and not in use dropped,
// to come back at its first use. What is huge and not in use is not this process's until then.
Outcome Mender::mend_all(const Run &run) {
    bool unseen = false;
    for (size_t i = 0; i < run.count; ++i) {
        const Cached there = cached(run.copy.fd, run.offset_of(i), kHugeSize);
        // What nobody read yet comes at its first use, as ever.
        const bool looked = i == 0 || (there.known ? there.pages > 0 : run.used[i]);
        unseen = unseen || !there.known;
        if (looked && !touch(run.at(i), kPageSize).ok()) return done();
    }
    if (!run.find().ok()) return done();
    bool clean = false;
    for (size_t i = 0; i < run.count; ++i) {
        const bool used = i == 0 || run.used[i];
        if (run.marks[i] == kOneEntry && !used) forget(run.at(i), kHugeSize);
        if (run.marks[i] != kSmallEntries) continue;
        doubtful_ = true;
        Outcome outcome = clean ? done() : write_back(run.copy, run.offset, run.count * kHugeSize);
        if (outcome.buildable) return outcome;
        if (!outcome.ok()) {
            *run.why = outcome;
            leave_small(run);
            return done();
        }
        clean = true;
        bool seen;
        outcome = used || collapses_ == Answer::yes
                      ? mend(run.copy.fd, run.pagemap, run.offset_of(i), run.at(i))
                      : drop(run.copy.fd, run.offset_of(i), run.at(i), &seen);
        if (outcome.status == Status::refused) return outcome;
        // Of what was just unpacked all is small, most likely what cannot be looked at, too. What
        // is not on disk yet is written by this, and dropped by the next one.
        if (unseen && is_unpacked_lately(run.copy.fd))
            (void)sys::drop_cached(run.copy.fd, run.offset, run.count * kHugeSize);
        unseen = false;
        run.left[i] = !outcome.ok();
        if (!outcome.ok()) *run.why = outcome;
    }
    return done();
}

// All of it that no other process has mapped.
void Mender::drop_unmapped(const Run &run) {
    forget(run.address, run.count * kHugeSize);
    (void)sys::drop_cached(run.copy.fd, run.offset, run.count * kHugeSize);
}

// Nothing of it can be dropped now. A small page that came into use later would stay small with
// this process, and for all others: all of those are left to the original.
void Mender::leave_small(const Run &run) {
    for (size_t i = 0; i < run.count; ++i) {
        run.left[i] = run.marks[i] == kSmallEntries;
        if (i > 0 && !run.used[i]) forget(run.at(i), kHugeSize);
    }
}

// The same on a kernel without PAGEMAP_SCAN, which tells of a mapping as a whole. What there is no
// time for is left to the original, and to later starts.
bool Mender::collapse_whole(const Run &run) {
    if (!collapse_page(run.pagemap, run.address)) return false;
    const u64 length = run.count * kHugeSize;
    if (touch_each(run.address, length).ok() && run.pagemap.all_huge(run.address, length))
        return true;
    Array<u16> uses;
    const bool known = uses.resize(run.count) &&
                       run.pagemap.count_present(run.target, run.count, uses.data()).ok();
    const auto is_used = [&](size_t i) { return known && uses[i]; };
    bool moved = false;
    const auto collapse_those = [&](bool used) {
        for (size_t turn = 1; turn < run.count; ++turn) {
            // However little time there is, others are found huge by each start.
            const size_t i = 1 + (turn + run.address / kHugeSize) % (run.count - 1);
            if (is_used(i) != used) continue;
            run.left[i] = (moved && is_over()) || !collapse(run.at(i), kHugeSize).ok();
            moved = true;
            if (run.left[i]) *run.why = small_copy;
            if (!used) forget(run.at(i), kHugeSize);
        }
    };
    collapse_those(true);
    collapse_those(false);
    return true;
}

Outcome Mender::mend_whole(const Run &run, bool first_is_small) {
    if (collapse_whole(run) || !first_is_small) return done();
    const Outcome dropped = drop_all(run);
    if (!dropped.ok() || run.pagemap.huge_bytes(run.address, kHugeSize)) return dropped;
    // In use it would stay so, for all.
    for (size_t i = 0; i < run.count; ++i) run.left[i] = true;
    *run.why = small_copy;
    return done();
}

// What is small is dropped, and comes back at its first use.
Outcome Mender::drop_all(const Run &run) {
    drop_unmapped(run);
    const auto touched = touch(run.address, kPageSize);
    return touched.ok() ? done() : refused(Call::read, touched);
}

Outcome Mender::look(const Region &region, const Copy &copy, const Pagemap &pagemap, u64 offset,
                     u64 target, u64 address, size_t count, u8 *left, Outcome *why, bool *huge) {
    Array<u8> used, marks;
    if (!used.resize(count) || !marks.resize(count)) return {Status::no_memory, Call::none, 0};
    u8 *const stay = left;
    const Run run = {region, copy,        pagemap,      offset, target, address,
                     count,  used.data(), marks.data(), stay,   why};
    const Cached there = cached(copy.fd, offset, count * kHugeSize);
    bool doubtful = doubtful_ || (there.known && there.pages < count * (kHugeSize / kPageSize));
    // Others at each start: sooner or later all were looked at.
    size_t first = 0, others = 0;
    bool touched[kOthers] = {};
    if (!doubtful && count > 1) {
        others = min(kOthers, count - 1);
        first = 1 + address / kHugeSize % (count - others);
        // What may have to be read from disk for it is looked at only where it is used.
        const bool stacked = may_ask_ == Answer::yes && !there.known;
        if (stacked && !pagemap.find_entries(target + first * kHugeSize, others, &used[first]).ok())
            others = 0;
        for (size_t i = 0; i < others; ++i)
            touched[i] = (!stacked || used[first + i] != kNothing) &&
                         touch(run.at(first + i), kPageSize).ok();
    }
    // Of what was not touched nothing is known.
    if (!pagemap.find_huge(address, count, marks.data()).ok()) return done();
    const bool small = !marks[0];
    *huge = !small;
    doubtful = doubtful || small;
    size_t seen = 1;
    for (size_t i = 0; i < others; ++i) {
        seen += touched[i];
        doubtful = doubtful || (touched[i] && !marks[first + i]);
    }
    // Of a mapping as a whole they tell that something is huge.
    if (!doubtful && !pagemap.tells_of_pages())
        doubtful = pagemap.huge_bytes(address, count * kHugeSize) < seen * kHugeSize;
    if (others) forget(run.at(first), others * kHugeSize);
    if (!doubtful || !may_mend()) return done();
    *huge = false;
    if (!run.find_used()) return mend_whole(run, small);
    return mend_all(run);
}

}  // namespace pht
