// Which regions get huge text, and from which backing.
#include "limits/memory.h"
#include "store/trust.h"
#include "text/displace.h"
#include "text/table.h"

namespace pht {

namespace {

// How far from vm.max_map_count a program is left alone, what one region may add besides a mapping
// and what it leaves of the original for each run of pages, and from which limit on a program
// cannot be near it where only the mappings around new objects are looked at: at start and after
// imports. (65,530 by default.)
constexpr u64 kMapMargin = 64, kMapsPerRegion = 9, kAmpleMaps = 16384;

// Nanoseconds that a private copy of 2 MiB takes, as long as none was seen: on a machine that gets
// its memory page by page from a host it is several times that. And how many are made however
// little time there is: what a small interpreter has.
constexpr u64 kCopyTime = 1'000'000, kLeastCopied = 2;

// The first number in a small file of /proc or /sys; false where there is none.
bool read_number(const char *file, u64 *value) {
    const Descriptor fd(sys::open(file));
    if (!fd.ok()) return false;
    char text[32] = {};
    const auto got = sys::read(fd, text, sizeof text);
    if (!got.ok()) return false;
    Cursor cursor{text, text + got.value()};
    *value = cursor.number(10);
    return cursor.ok;
}

bool contains(const Object &object, u64 address) {
    return address && object.low <= address && address < object.high;
}

// Whether one of the patterns, each ended by a NUL, matches.
bool matches_any(Str patterns, Str path) {
    bool any = false;
    each_text(patterns, [&](Str pattern) { return !(any = glob_match(pattern, path)); });
    return any;
}

// Mappings that a region may add which is swapped in so many runs.
u64 maps_for(size_t runs) {
    return kMapsPerRegion + 2 * runs;
}

}  // namespace

bool Table::has_maps_for(size_t runs) const {
    return map_limit_ == sys::kUnlimited ||
           mapping_count_ + maps_for(runs) + kMapMargin <= map_limit_;
}

// Whether it is a program that has Python inside, and is not Python. Where no store can serve it,
// each of its processes would have a copy: PostgreSQL's for each connection.
bool Table::is_host(const Region &region) const {
    const u64 interpreter = __atomic_load_n(&interpreter_, __ATOMIC_RELAXED);
    return interpreter && region.object.is_main && !contains(region.object, interpreter);
}

Outcome Table::filter(const Region &region, const Request &request) const {
    for (const u64 address : keep_out_)
        if (contains(region.object, address)) return {Status::own_code, Call::none, 0};
    if (region.coverable_bytes == 0)
        return {region.outcome.status == Status::strict ? Status::strict : Status::too_small,
                Call::none, 0};
    const Str path = region.path_text();
    if (request.include.size && !matches_any(request.include, path))
        return {Status::not_included, Call::none, 0};
    if (matches_any(request.exclude, path)) return {Status::excluded, Call::none, 0};
    if (region.coverable_bytes < request.minimum_text)
        return {Status::below_minimum, Call::none, 0};
    return done();
}

// Whether a private copy of that size fits in what is left. Where a smaller one did not, in this
// pass, nobody is asked again.
Outcome Table::may_copy(Backing backing, u64 bytes, const Request &request, MemoryTurn *turn) {
    const u64 own = private_bytes() + prepared_private_;
    if (bytes >= too_large_) return no_room_;
    const Outcome outcome = turn->take_private(backing, bytes, request.private_limit, own);
    // Who waits for another process may well have room.
    if (!outcome.ok() && outcome.call != Call::lock) {
        too_large_ = bytes;
        no_room_ = outcome;
    }
    return outcome;
}

// Bytes of private copies that the settings leave room and time for, and which of them it is that
// leaves no more; `own` are there.
u64 Table::most_copied(const Request &request, u64 own, Status *why) const {
    const u64 each = copied_pages_ ? copied_ns_ / copied_pages_ : kCopyTime;
    const u64 left = request.copy_time - min(request.copy_time, copying_ns_);
    const u64 timely = max(left / max<u64>(each, 1), own || request.frugal ? 0 : kLeastCopied);
    const u64 room = request.private_limit - min(request.private_limit, own);
    *why = timely < room / kHugeSize ? Status::no_time : Status::budget;
    return min(timely, room / kHugeSize) * kHugeSize;
}

// Leaves out all but the `most` pages that the program has used most; returns how many stay. What
// was not used is not worth a copy of its own where there is no room for all.
size_t Table::leave_cold(Region &region, size_t most, Status why, const Pagemap &pagemap) {
    Array<u16> used;
    if (!used.resize(region.pages.size()) ||
        !pagemap.count_present(region.base, region.pages.size(), used.data()).ok())
        return 0;
    const auto is_candidate = [&](size_t i) {
        return region.pages[i].state == HugePage::State::small && region.pages[i].absent && used[i];
    };
    for (HugePage &page : region.pages) {
        if (page.state != HugePage::State::small) continue;
        page.absent = true;
        page.outcome = {why, Call::none, 0};
    }
    size_t taken = 0;
    for (; taken < most; ++taken) {
        size_t best = region.pages.size();
        for (size_t i = 0; i < region.pages.size(); ++i)
            if (is_candidate(i) && (best == region.pages.size() || used[i] > used[best])) best = i;
        if (best == region.pages.size()) break;
        region.pages[best].absent = false;
    }
    return taken;
}

// Stages all planned pages of a region that are there to be staged, and marks those that are huge.
// What was staged before a failure stays in region.staged.
Outcome Table::stage_pages(Region &region, Backing backing, const Request &request,
                           const Sources &sources) {
    Outcome outcome = done();
    size_t ready = 0, absent = 0, little = 0;
    Outcome small = {Status::no_huge_page, Call::none, 0};
    for (size_t i = 0; i < region.pages.size(); ++i) {
        HugePage &page = region.pages[i];
        if (page.state != HugePage::State::small || !sources.entry) continue;
        page.absent = !sources.entry->has(region, region.address_of(i));
        if (!page.absent) continue;
        page.outcome = {Status::absent, Call::none, 0};
        ++absent;
    }
    if (sources.entry && request.backing == Backing::automatic)
        little = leave_little_used(region, sources.pagemap);
    const auto wanted = [](const HugePage &page) {
        return page.state == HugePage::State::small && !page.absent;
    };
    each_run(region.pages, wanted, [&](size_t first, size_t count) {
        if (!outcome.ok()) return;
        Staged staged;
        Array<u8> huge, left;
        if (!huge.resize(count) || !left.resize(count)) {
            outcome = {Status::no_memory, Call::none, 0};
            return;
        }
        Sources with = sources;
        with.left = left.data();
        outcome =
            build(backing, region, with, region.address_of(first), count * kHugeSize, &staged);
        if (!outcome.ok()) return;
        if (small.call == Call::none) small = staged.small;
        if (!region.staged.push(staged)) {
            discard(staged.address, staged.length);
            outcome = {Status::no_memory, Call::none, 0};
            return;
        }
        if (backing == Backing::store) {
            // What was not touched yet is not there yet; what is small was seen.
            for (size_t i = 0; i < count; ++i) huge[i] = 1;
        } else if (const auto found = sources.pagemap.find_huge(staged.address, count, huge.data());
                   !found.ok()) {
            outcome = {Status::unreadable, Call::pagemap, found.error()};
            return;
        }
        for (size_t i = 0; i < count; ++i) {
            HugePage &page = region.pages[first + i];
            page.ready = huge[i] && !left[i];
            if (!page.ready) page.outcome = staged.small;
            ready += page.ready;
        }
    });
    if (outcome.ok() && ready == 0)
        outcome = little   ? Outcome{Status::little_used, Call::none, 0}
                  : absent ? Outcome{Status::absent, Call::none, 0}
                           : small;
    // What is there serves. More is asked for where it is being made, or used.
    const Entry *entry = sources.entry;
    if (entry && request.building != Building::never && entry->may_grow()) {
        region.lacks = outcome.buildable || entry->is_growing() ||
                       (absent && uses_absent(region, sources.pagemap));
        outcome.buildable = region.lacks || absent;
    }
    return outcome;
}

void Table::prepare(const Request &request, Scope scope) {
    const Stores stores(request, pagemap_);
    Mender mender(mending_time(), mends_patiently_);
    const bool limited = read_number("/proc/sys/vm/max_map_count", &map_limit_);
    if (!limited) map_limit_ = sys::kUnlimited;
    const bool few = scope == Scope::fresh || scope == Scope::waiting;
    if (limited && few && map_limit_ < kAmpleMaps) {
        mapping_count_ = 0;
        (void)each_mapping([&](const Mapping &) { return ++mapping_count_ > 0; });
    }
    prepared_private_ = copying_ns_ = 0;
    too_large_ = sys::kUnlimited;
    for (Region *region : regions_) {
        if (!in_scope(*region, scope) || !region->candidate) continue;
        // Of a swapped region only the rest, and on the backing it has.
        const bool rest = region->any_huge();
        const bool wanted =
            scope != Scope::fresh && region->any_small() &&
            (request.backing == Backing::automatic || request.backing == region->backing);
        if (rest && !wanted) continue;
        region->missing = region->fresh = false;
        const u64 began = sys::now();
        Outcome outcome = filter(*region, request);
        if (outcome.ok()) {
            const auto opened = pagemap_.open();
            if (!opened.ok()) outcome = {Status::unreadable, Call::pagemap, opened.error()};
        }
        if (outcome.ok() && !has_maps_for(0)) outcome = {Status::map_count, Call::none, 0};
        if (!outcome.ok()) {
            if (!rest) region->outcome = outcome;
            continue;
        }
        if (!rest) region->file = {};
        Original original;
        const Outcome opened = original.open(*region);
        Sources sources = {pagemap_, stores, original, opened};
        sources.mender = &mender;
        if (rest) {
            const Outcome built = build_region(*region, region->backing, request, sources);
            if (built.ok()) mapping_count_ += maps_for(region->staged.size());
            region->grows = is_stored(region->backing) && built.buildable;
            region->missing = region->grows && region->lacks;
            region->elapsed_ns += sys::since(began);
            continue;
        }
        if (opened.ok()) region->file = original.file();
        choose(*region, request, sources);
        region->elapsed_ns = sys::since(began);
        if (region->backing != Backing::none) mapping_count_ += maps_for(region->staged.size());
    }
    mended(mender.spent());
}

}  // namespace pht
