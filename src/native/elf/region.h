// One loaded object with what was planned for it and what was done.
#pragma once

#include "elf/object.h"
#include "kernel/maps.h"
#include "words/backing.h"
#include "words/status.h"

namespace pht {

// A stretch of the original layout, to be told apart when it is put back.
struct Extent {
    enum class Kind : u8 {
        text,      // r-x, from the file
        readonly,  // r--, from the file
        padding,   // --- of a file, the dynamic linker's filling between segments
        guard,     // --- of no file
        hole,      // nothing is mapped there
    };
    u64 start, end;
    u64 offset;  // in the file; of `start`
    Kind kind;
    // Text or readonly, and of no segment: musl leaves the whole file mapped between its segments.
    // Past the file's end reading raises SIGBUS. Nobody reads it, so it needs no content.
    bool filler = false;

    bool from_file() const { return !filler && (kind == Kind::text || kind == Kind::readonly); }
};

struct HugePage {
    enum class State : u8 {
        unusable,  // not part of the plan
        small,     // planned, and still on small pages; `outcome` says why
        huge,      // swapped
    };
    State state = State::unusable;
    u8 ready = 0;         // between prepare and commit: new content was built, and it is huge
    bool absent = false;  // the store has no copy of it yet, or it is left out of a private one
    Outcome outcome;
    u32 text = 0;  // bytes of text in it
};

// Freshly built content, waiting to be moved over pages [first, first + length / 2 MiB).
struct Staged {
    u64 address, target, length;
    Outcome small;  // of pages that came out small
};

// Text of the original that was moved out of the way, from `start` to `address`; see displace.h.
struct Displaced {
    u64 address, start, length;
};

struct Region {
    // As a whole; why what is small is so, its outcome says.
    enum class State : u8 { small, partly_huge, huge, restored };

    Object object;
    bool seen = true;            // the dynamic linker still lists it
    bool candidate = true;       // large enough to be worth planning
    bool fresh = true;           // no pass has decided about it yet
    bool half_restored = false;  // an mremap failed in the middle
    bool missing = false;        // waits for a store entry to be built, or for more of one
    bool promised = false;       // which will be before long: other copies would be useless then
    bool grows = false;          // more of its text can be added to the entry that it has
    bool lacks = true;           // and some of that is used, or was asked for
    bool outlived = false;       // the kernel takes the file itself: its entry is of no use now
    u32 entry_pages = 0;         // what an entry has that gives way while the file is tried
    u32 dev_major = 0, dev_minor = 0;
    u64 inode = 0;
    sys::FileIdentity file;  // when it was copied; size 0 where it could not be opened
    Array<char> path;        // as the kernel names the mapped file; NUL-terminated
    Array<Extent> extents;   // sorted, from_file and gaps
    u64 base = 0;            // address of pages[0]
    Array<HugePage> pages;
    Array<Staged> staged;  // between prepare and commit
    Array<Displaced> displaced;
    u64 text_bytes = 0;       // executable file text
    u64 coverable_bytes = 0;  // of it, inside planned pages
    Backing backing = Backing::none;
    Outcome outcome;           // why pages are small; done() where none is
    Outcome tried[kBackings];  // by backing: why that one was not taken
    u64 elapsed_ns = 0;
    Array<u64> used;     // 2 MiB pages in use when it was last looked at, for mending
    bool mends = false;  // some of those are small, and it is put back for that
    u32 told = 0;        // checksum of what was told of it last; see Engine::report()

    Str path_text() const { return {path.data(), path.empty() ? 0 : path.size() - 1}; }
    bool any_huge() const {
        for (const HugePage &page : pages)
            if (page.state == HugePage::State::huge) return true;
        return false;
    }
    bool any_small() const {
        for (const HugePage &page : pages)
            if (page.state == HugePage::State::small) return true;
        return false;
    }
    State state() const {
        if (any_huge()) return any_small() ? State::partly_huge : State::huge;
        return outcome.status == Status::restored ? State::restored : State::small;
    }
    bool was_used(u64 page) const {
        for (const u64 one : used)
            if (one == page) return true;
        return false;
    }
    // Whether the next process is likely to have it at the same address modulo 2 MiB: a program
    // that is not position-independent, what an aligning kernel mapped (from most file systems),
    // and what has segments of that alignment. By chance one in 512 of the others lies so, too.
    bool comes_again() const {
        u64 offset = 0;
        for (const Extent &extent : extents)
            if (extent.start == object.low && extent.from_file()) offset = extent.offset;
        return object.load_bias == 0 || (object.low - offset) % kHugeSize == 0;
    }
    u64 swapped_bytes() const {
        u64 n = 0;
        for (const HugePage &page : pages) n += page.state == HugePage::State::huge;
        return n * kHugeSize;
    }
    u64 mapped_text() const {
        u64 n = 0;
        for (const HugePage &page : pages)
            if (page.state == HugePage::State::huge) n += page.text;
        return n;
    }
    u64 address_of(size_t page) const { return base + page * kHugeSize; }
    int text_protection() const { return PROT_READ | PROT_EXEC | (object.bti ? PROT_BTI : 0); }
};

inline constexpr const char *kRegionStateNames[] = {"small", "partly huge", "huge", "restored"};

// Calls visit(start, end, offset in the file) for what of [target, target + length) comes from the
// file, until one fails.
template <class Visit>
Outcome each_content(const Region &region, u64 target, u64 length, Visit visit) {
    for (const Extent &extent : region.extents) {
        const u64 start = max(extent.start, target), end = min(extent.end, target + length);
        if (start >= end || !extent.from_file()) continue;
        const Outcome outcome = visit(start, end, extent.offset + (start - extent.start));
        if (!outcome.ok()) return outcome;
    }
    return done();
}

// Calls visit(first, count) for every run of pages for which wanted(page) holds.
template <class Wanted, class Visit>
void each_run(const Array<HugePage> &pages, Wanted wanted, Visit visit) {
    for (size_t i = 0; i < pages.size();) {
        if (!wanted(pages[i])) {
            ++i;
            continue;
        }
        size_t end = i;
        while (end < pages.size() && wanted(pages[end])) ++end;
        visit(i, end - i);
        i = end;
    }
}

}  // namespace pht
