// Which backing a region gets: one rung after the other, and what came of each.
#include "limits/memory.h"
#include "store/trust.h"
#include "text/displace.h"
#include "text/table.h"

namespace pht {

namespace {

// An entry without the pages that are used has none of the others either, and what is not worth a
// page of the store is worth no private one.
bool ends_ladder(Status status) {
    return status == Status::absent || status == Status::little_used;
}

// Whether the file itself is tried before this entry is used: it needs no copy, and the entry was
// made where the kernel was another, or by who had asked for a store. What runs from it goes on to.
bool gives_way(const Region &region, const Request &request, const Entry &entry) {
    return !region.any_huge() && entry.is_untried() && entry.may_grow() &&
           request.backing == Backing::automatic && request.building != Building::never &&
           region.tried[static_cast<int>(Backing::file)].status == Status::pending;
}

u32 count_pages(const Region &region, const Entry &entry) {
    u32 n = 0;
    for (size_t i = 0; i < region.pages.size(); ++i)
        n += region.pages[i].state == HugePage::State::small &&
             entry.has(region, region.base + i * kHugeSize);
    return n;
}

// How many pages of what was staged are huge. Not those that are marked so: before Linux 6.7 all
// are, where any is.
u64 count_huge(const Region &region, const Pagemap &pagemap) {
    u64 bytes = 0;
    for (const Staged &staged : region.staged)
        bytes += pagemap.huge_bytes(staged.address, staged.length);
    return bytes / kHugeSize;
}

}  // namespace

// What came of collapsing a file in place. Where it was done once, a refusal is of one file alone:
// it is being written, or has not been written back.
void Table::learn(const Region &region, const Outcome &outcome) {
    const bool able = region.dev_major == able_major_ && region.dev_minor == able_minor_;
    if (outcome.ok()) {
        able_major_ = region.dev_major;
        able_minor_ = region.dev_minor;
    } else if (!able && outcome.status == Status::refused && outcome.call == Call::collapse &&
               outcome.error == EINVAL) {
        refusal_ = outcome;
        refusing_major_ = region.dev_major;
        refusing_minor_ = region.dev_minor;
    }
}

// Builds all planned pages of a region with one backing and keeps those that are huge. On any
// failure nothing of it is left.
Outcome Table::build_region(Region &region, Backing backing, const Request &request,
                            const Sources &sources) {
    u64 bytes = 0;
    for (HugePage &page : region.pages) {
        page.absent = false;
        if (page.state == HugePage::State::small) bytes += kHugeSize;
    }
    // Until what is built counts as taken.
    MemoryTurn turn;
    if (is_private(backing)) {
        const u64 own = private_bytes() + prepared_private_;
        Status why;
        const u64 most = most_copied(request, own, &why) / kHugeSize;
        if (most * kHugeSize < bytes)
            bytes = leave_cold(region, most, why, sources.pagemap) * kHugeSize;
        if (!bytes) return {why, Call::none, 0};
        const Outcome allowed = may_copy(backing, bytes, request, &turn);
        if (!allowed.ok()) return allowed;
    }
    const bool refusing = refusal_.status == Status::refused &&
                          region.dev_major == refusing_major_ &&
                          region.dev_minor == refusing_minor_;
    if (backing == Backing::file && refusing) return refusal_;
    if (is_stored(backing) && !sources.opened.ok()) return sources.opened;

    const auto stage = [&](const Entry *entry) {
        Sources with = sources;
        with.entry = entry;
        const Outcome outcome = stage_pages(region, backing, request, with);
        if (!outcome.ok()) unstage(region);
        return outcome;
    };
    Outcome outcome;
    if (is_stored(backing)) {
        Entry entry;
        const auto use = [&](const Entry &found) {
            if (!gives_way(region, request, found)) return stage(&found);
            region.entry_pages = count_pages(region, found);
            return Outcome{Status::superseded, Call::none, 0};
        };
        outcome = sources.stores.each_entry(backing, region, sources.original.fd(),
                                            sources.original.file(), &entry, use);
    } else {
        const u64 began = sys::now();
        outcome = stage(nullptr);
        if (is_private(backing) && outcome.ok()) {
            const u64 taken = sys::since(began);
            copying_ns_ += taken;
            copied_ns_ += taken;
            copied_pages_ += bytes / kHugeSize;
        }
    }
    if (backing == Backing::file) learn(region, outcome);
    if (outcome.ok() && !has_maps_for(region.staged.size())) {
        unstage(region);
        outcome = {Status::map_count, Call::none, 0};
    }
    if (outcome.ok() && is_private(backing))
        for (const HugePage &page : region.pages) prepared_private_ += page.ready * kHugeSize;
    return outcome;
}

// Why a region gets no private copy that was not asked for; Status::ok where it does.
Status Table::why_not_copied(const Region &region) const {
    if (region.promised) return Status::promised;
    return is_host(region) ? Status::host : Status::ok;
}

// One backing, and what came of it.
bool Table::attempt(Region &region, Backing backing, const Request &request,
                    const Sources &sources) {
    const bool lasting = request.building == Building::always || region.comes_again();
    region.lacks = true;  // all of it, unless there is an entry
    Outcome outcome = build_region(region, backing, request, sources);
    if ((outcome.buildable || outcome.status == Status::overlay) && !lasting) {
        outcome.buildable = false;
        if (says_little(outcome) || outcome.status == Status::overlay)
            outcome.status = Status::elsewhere;
    }
    region.outcome = region.tried[static_cast<int>(backing)] = outcome;
    if (outcome.ok()) region.backing = backing;
    if (is_stored(backing) && outcome.ok()) leave_witness(region, sources.original.fd());
    region.missing = region.missing || (is_stored(backing) && outcome.buildable && region.lacks);
    return outcome.ok();
}

bool refuses_itself(const Region &region) {
    const Outcome &file = region.tried[static_cast<int>(Backing::file)];
    return file.status == Status::unsupported || file.status == Status::no_huge_page ||
           (file.status == Status::refused && file.call == Call::collapse && file.error == EINVAL);
}

// Where an entry gave way: the file itself, or else the entry. Where that is of no use now, and
// not to be built anew, what there is of the file.
bool Table::attempt_file_or_entry(Region &region, const Request &request, const Sources &sources) {
    const bool file = attempt(region, Backing::file, request, sources);
    region.outlived = file && count_huge(region, sources.pagemap) >= region.entry_pages;
    if (region.outlived) return true;
    // The last 2 MiB of a file are hardly ever whole: the entry has more.
    if (file) region.tried[static_cast<int>(Backing::file)] = {Status::no_huge_page, Call::none, 0};
    unstage(region);
    region.backing = Backing::none;
    return attempt(region, Backing::store, request, sources) ||
           (file && !region.missing && attempt(region, Backing::file, request, sources));
}

// One rung after the other, until one serves or none is to be tried any more.
void Table::descend(Region &region, const Request &request, const Sources &sources) {
    const Outcome &disk = region.tried[static_cast<int>(Backing::store)];
    for (const Backing backing : kLadder) {
        const Status kept = is_private(backing) ? why_not_copied(region) : Status::ok;
        if (kept != Status::ok) {
            region.outcome = {kept, Call::none, 0};
            return;
        }
        const bool trial = backing == Backing::file && region.entry_pages;
        const bool serves = trial ? attempt_file_or_entry(region, request, sources)
                                  : attempt(region, backing, request, sources);
        if (serves || (!trial && ends_ladder(region.outcome.status))) return;
        // What the store will give soon is worth no copy.
        if (backing == Backing::file && disk.status == Status::small_copy) {
            region.outcome = disk;
            return;
        }
        // Building the entry comes before a private copy, if somebody is to do it.
        if (request.building != Building::never && backing == Backing::shm && region.missing)
            return;
    }
}

bool is_to_be_noted(const Region &region) {
    return region.backing == Backing::store && region.entry_pages && refuses_itself(region);
}

// Tries the backing that was asked for, or one after the other, and records what came of each.
void Table::choose(Region &region, const Request &request, const Sources &sources) {
    for (Outcome &tried : region.tried) tried = {};
    region.backing = Backing::none;
    region.outlived = region.grows = false;
    region.entry_pages = 0;
    if (request.backing == Backing::automatic)
        descend(region, request, sources);
    else
        attempt(region, request.backing, request, sources);
    // What a lower rung serves waits for nothing; what a store has in part waits for the rest, and
    // what lies in shared memory for its place on disk.
    if (region.backing == Backing::none) return;
    const Outcome &disk = region.tried[static_cast<int>(Backing::store)];
    region.grows = is_stored(region.backing) && region.outcome.buildable;
    region.missing = region.outlived || (region.grows && region.lacks);
    if (is_to_be_noted(region)) region.missing = true;
    if (request.building != Building::never && region.backing == Backing::shm && disk.buildable &&
        disk.status != Status::untrusted && sources.stores.can_be_better())
        region.missing = true;
}

}  // namespace pht
