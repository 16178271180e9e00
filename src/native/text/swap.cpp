#include "text/swap.h"

#include "store/file_steps.h"
#include "text/displace.h"
#include "text/unchanged.h"

namespace pht {

namespace {

// A stretch of the original file mapped somewhere else, to be moved to `start`.
struct StagedOriginal {
    u64 address, start, end;
    Extent::Kind kind;
    u64 offset;  // in the file, of `start`
};

void set_outcome(Region &region, size_t first, size_t count, HugePage::State state,
                 Outcome outcome) {
    for (size_t i = first; i < first + count; ++i) {
        region.pages[i].state = state;
        region.pages[i].outcome = outcome;
    }
}

// Calls visit(start, end) for the holes of the plan inside [from, to).
template <class Visit> void each_hole(const Region &region, u64 from, u64 to, Visit visit) {
    for (const Extent &extent : region.extents) {
        const u64 start = max(extent.start, from), end = min(extent.end, to);
        if (extent.kind == Extent::Kind::hole && start < end) visit(start, end);
    }
}

// Takes the holes inside [from, to) for us. What looked free a moment ago may be somebody's now:
// MAP_FIXED_NOREPLACE tells, and on kernels before 4.17, where it is a mere hint, the address does.
Outcome reserve_holes(const Region &region, u64 from, u64 to) {
    Outcome outcome = done();
    u64 reserved_to = from;
    each_hole(region, from, to, [&](u64 start, u64 end) {
        if (!outcome.ok()) return;
        const auto got =
            sys::mmap(start, end - start, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        if (!got.ok()) {
            outcome = refused(Call::mmap_reserve, got);
        } else if (got.value() != start) {
            sys::munmap(got.value(), end - start);
            outcome = refused(Call::mmap_reserve, Error{EEXIST});
        } else {
            reserved_to = end;
        }
    });
    if (!outcome.ok())
        each_hole(region, from, reserved_to,
                  [](u64 start, u64 end) { discard(start, end - start); });
    return outcome;
}

bool is_mapped(u64 start, u64 length) {
    // MADV_NORMAL changes nothing here and answers ENOMEM where any page is not mapped.
    return sys::madvise(start, length, MADV_NORMAL).error() != ENOMEM;
}

class StagedOriginals : NonCopyable {
public:
    StagedOriginals() = default;
    ~StagedOriginals() {
        for (StagedOriginal &staged : list_) drop_before(staged, staged.end);
    }

    // Maps what originally was in [from, to) at other addresses.
    Outcome map(const Region &region, int fd, u64 from, u64 to) {
        for (const Extent &extent : region.extents) {
            const u64 start = max(extent.start, from), end = min(extent.end, to);
            if (start >= end || extent.kind == Extent::Kind::hole) continue;
            int protection = PROT_NONE;
            if (extent.kind == Extent::Kind::text) protection = region.text_protection();
            if (extent.kind == Extent::Kind::readonly) protection = PROT_READ;
            const bool anonymous = extent.kind == Extent::Kind::guard;
            const u64 offset = extent.offset + (start - extent.start);
            const auto got =
                anonymous
                    ? sys::mmap(0, end - start, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                    : sys::mmap(0, end - start, protection, MAP_PRIVATE, fd, offset);
            if (!got.ok()) return refused(Call::mmap, got);
            const Extent::Kind kind = extent.filler ? Extent::Kind::padding : extent.kind;
            if (!list_.push({got.value(), start, end, kind, offset})) {
                sys::munmap(got.value(), end - start);
                return {Status::no_memory, Call::none, 0};
            }
        }
        return done();
    }

    // Whether the live bytes of [from, to) are those of the file: done(), Status::modified, or why
    // the file cannot be read. The file is read, not the spare mapping of it: into that the kernel
    // has put the probes (uprobes) set meanwhile, which are to come with it.
    Outcome same_content(int fd, u64 from, u64 to) const {
        Outcome outcome = done();
        for (const StagedOriginal &staged : list_) {
            const u64 start = max(staged.start, from), end = min(staged.end, to);
            const bool content =
                staged.kind == Extent::Kind::text || staged.kind == Extent::Kind::readonly;
            if (!outcome.ok() || !content || start >= end) continue;
            outcome = each_step(fd, staged.offset + (start - staged.start), end - start,
                                [&](u64 seen, const u8 *bytes, size_t count) {
                                    return compare(reinterpret_cast<const void *>(start + seen),
                                                   bytes, count) == 0
                                               ? done()
                                               : Outcome{Status::modified, Call::none, 0};
                                });
        }
        return outcome;
    }

    // Moves the parts of the spares that belong to [from, to) there. Ranges must ascend from call
    // to call.
    Outcome move(u64 from, u64 to) {
        for (StagedOriginal &staged : list_) {
            const u64 start = max(staged.start, from), end = min(staged.end, to);
            if (start >= end) continue;
            drop_before(staged, start);
            const auto got = sys::mremap_onto(staged.address, end - start, start);
            if (!got.ok()) return refused(Call::mremap, got);
            // From here on the place it came from may be another thread's.
            advance(staged, end);
        }
        return done();
    }

private:
    static void advance(StagedOriginal &staged, u64 to) {
        staged.address += to - staged.start;
        staged.offset += to - staged.start;
        staged.start = to;
    }
    static void drop_before(StagedOriginal &staged, u64 to) {
        discard(staged.address, to - staged.start);
        advance(staged, to);
    }

    Array<StagedOriginal> list_;
};

// The last resort when an mremap failed and left a hole: never seen, and the kernel checks what
// makes it fail before it unmaps; but text that is gone kills the program.
void rescue(Region &region, u64 from, u64 to) {
    Original original;
    if (!original.open(region).ok()) return;
    StagedOriginals originals;
    if (originals.map(region, original.fd(), from, to).ok()) originals.move(from, to);
}

// What was changed since it was planned: a page's content, or how it is mapped, which is looked at
// last. Sets marks[i]; the outcome says what cannot be found out.
Outcome find_changed(const Region &region, const Pagemap &pagemap, MapsQuery &query, u64 start,
                     size_t count, u8 *marks) {
    const auto looked = pagemap.find_modified(start, count, marks);
    if (!looked.ok()) return {Status::unreadable, Call::pagemap, looked.error()};
    const auto compared = find_unplanned(region, query, start, count, false, marks);
    if (!compared.ok()) return {Status::unreadable, Call::read, compared.error()};
    return done();
}

// Moving the old text away takes its time; after it, once more.
bool is_still_planned(const Region &region, MapsQuery &query, u64 target, size_t count) {
    Array<u8> marks;
    if (!marks.resize(count) ||
        !find_unplanned(region, query, target, count, false, marks.data()).ok())
        return false;
    for (const u8 mark : marks)
        if (mark) return false;
    return true;
}

void commit_run(Region &region, MapsQuery &query, u64 address, size_t first, size_t count) {
    const u64 target = region.address_of(first), length = count * kHugeSize;
    Outcome outcome = reserve_holes(region, target, target + length);
    if (!outcome.ok()) {
        set_outcome(region, first, count, HugePage::State::small, outcome);
        discard(address, length);
        return;
    }
    const size_t displaced = region.displaced.size();
    displace(region, target, target + length);
    const bool planned =
        region.displaced.size() == displaced || is_still_planned(region, query, target, count);
    ErrorOr<void> result = Error{EAGAIN};
    if (planned) result = sys::mremap_onto(address, length, target);
    if (result.ok()) {
        set_outcome(region, first, count, HugePage::State::huge, done());
        return;
    }
    discard(address, length);
    bring_back(region, target, target + length);
    if (!is_mapped(target, length)) rescue(region, target, target + length);
    each_hole(region, target, target + length,
              [](u64 start, u64 end) { discard(start, end - start); });
    outcome = planned ? refused(Call::mremap, result) : Outcome{Status::modified, Call::none, 0};
    set_outcome(region, first, count, HugePage::State::small, outcome);
}

// hugetlb mappings cannot be split at 4 KiB boundaries, so small pieces cannot be moved over them:
// an ordinary copy goes there first.
Outcome leave_hugetlb(Region &region, const Sources &sources, u64 target, u64 length) {
    Staged staged;
    const Outcome outcome = build_from_reserved(region, sources, target, length, &staged);
    if (!outcome.ok()) return outcome;
    const auto result = sys::mremap_onto(staged.address, length, target);
    if (result.ok()) return done();
    discard(staged.address, length);
    return refused(Call::mremap, result);
}

void restore_run(Region &region, const Sources &sources, MapsQuery &query, size_t first,
                 size_t count) {
    const u64 from = region.address_of(first), to = from + count * kHugeSize;
    const auto fail = [&](Outcome outcome) {
        set_outcome(region, first, count, HugePage::State::huge, outcome);
    };
    Array<u8> modified;
    if (!modified.resize(count)) return fail({Status::no_memory, Call::none, 0});
    StagedOriginals originals;
    Outcome outcome = originals.map(region, sources.original.fd(), from, to);
    if (!outcome.ok()) return fail(outcome);

    // A breakpoint planted since must survive. File-backed copies tell by the page; anonymous ones
    // have to be compared, and those of which only the mapping as a whole tells.
    const bool anonymous = region.backing == Backing::thp || region.backing == Backing::hugetlb;
    if (!anonymous) {
        const auto looked = sources.pagemap.find_modified(from, count, modified.data());
        if (!looked.ok()) return fail({Status::unreadable, Call::pagemap, looked.error()});
    }
    for (size_t i = 0; i < count; ++i) {
        if (!anonymous && (!modified[i] || sources.pagemap.tells_pages())) continue;
        outcome = originals.same_content(sources.original.fd(), from + i * kHugeSize,
                                         from + (i + 1) * kHugeSize);
        modified[i] = outcome.status == Status::modified;
        if (!outcome.ok() && !modified[i]) return fail(outcome);
    }
    for (size_t i = 0; sources.original.touched() && i < count; ++i) {
        const u64 start = from + i * kHugeSize;
        outcome = modified[i]
                      ? done()
                      : originals.same_content(sources.original.fd(), start, start + kHugeSize);
        if (outcome.status == Status::modified) outcome = {Status::file_gone, Call::none, 0};
        if (!outcome.ok()) return fail(outcome);
    }
    if (region.backing == Backing::hugetlb) {
        outcome = leave_hugetlb(region, sources, from, to - from);
        if (!outcome.ok()) return fail(outcome);
    }
    // How it is mapped as late as can be. What a restore that failed half way put back is right.
    const auto compared = find_unplanned(region, query, from, count, true, modified.data());
    if (!compared.ok()) return fail({Status::unreadable, Call::read, compared.error()});
    for (size_t i = 0; i < count; ++i) {
        const size_t page = first + i;
        if (modified[i]) {
            set_outcome(region, page, 1, HugePage::State::huge, {Status::modified, Call::none, 0});
            continue;
        }
        size_t run = 1;
        while (i + run < count && !modified[i + run]) ++run;
        const u64 start = region.address_of(page), end = start + run * kHugeSize;
        outcome = originals.move(start, end);
        if (outcome.ok()) {
            each_hole(region, start, end, [](u64 at, u64 stop) { discard(at, stop - at); });
            set_outcome(region, page, run, HugePage::State::small,
                        {Status::restored, Call::none, 0});
        } else {
            region.half_restored = true;
            set_outcome(region, page, run, HugePage::State::huge, outcome);
        }
        i += run - 1;
    }
}

}  // namespace

void commit(Region &region, const Pagemap &pagemap, MapsQuery &query) {
    for (const Staged &staged : region.staged) {
        const size_t first = (staged.target - region.base) / kHugeSize;
        const size_t count = staged.length / kHugeSize;
        Array<u8> modified;
        Outcome outcome = {Status::no_memory, Call::none, 0};
        if (modified.resize(count))
            outcome = find_changed(region, pagemap, query, staged.target, count, modified.data());
        for (size_t i = 0; i < count; ++i) {
            HugePage &page = region.pages[first + i];
            if (!outcome.ok())
                page.outcome = outcome;
            else if (modified[i])
                page.outcome = {Status::modified, Call::none, 0};
            if (!outcome.ok() || modified[i]) page.ready = 0;
        }
        for (size_t i = 0; i < count;) {
            const bool ready = region.pages[first + i].ready;
            size_t run = 1;
            while (i + run < count && region.pages[first + i + run].ready == ready) ++run;
            const u64 address = staged.address + i * kHugeSize;
            if (ready)
                commit_run(region, query, address, first + i, run);
            else
                discard(address, run * kHugeSize);
            i += run;
        }
    }
    region.staged.clear();
    for (HugePage &page : region.pages) page.ready = 0;
}

void restore(Region &region, const Sources &sources) {
    region.half_restored = false;
    MapsQuery query(false);
    each_run(
        region.pages, [](const HugePage &page) { return page.state == HugePage::State::huge; },
        [&](size_t first, size_t count) {
            if (sources.opened.ok())
                restore_run(region, sources, query, first, count);
            else
                set_outcome(region, first, count, HugePage::State::huge, sources.opened);
        });
    if (!region.any_huge()) discard_displaced(region);
}

}  // namespace pht
