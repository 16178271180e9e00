#include "table.h"

#include <new>

#include "maps.h"
#include "memory_limit.h"
#include "plan.h"
#include "retire.h"
#include "swap.h"

namespace pht {

namespace {

// The rungs of Backing::automatic, in the order they are tried. The original file itself would be
// best, but an entry in the store means that it was tried when the entry was built: asking the
// kernel again at every start costs more than all the rest. Where there is no entry, it is asked
// before one is built.
constexpr Backing kLadder[] = {Backing::store, Backing::file, Backing::shm, Backing::memfd,
                               Backing::thp};

// How far from vm.max_map_count a program is left alone, what one region may add, and from which
// limit on a program cannot be near it where only the mappings around new objects are looked at:
// at start and after imports. (65,530 by default.)
constexpr u64 kMapMargin = 64, kMapsPerRegion = 9, kAmpleMaps = 16384;

// The first number in a small file of /proc or /sys; false where there is none.
bool read_number(const char *file, u64 *value) {
    const Descriptor fd(sys::open(file));
    if (fd < 0) return false;
    char text[32] = {};
    const long got = sys::read(fd, text, sizeof text);
    if (sys::failed(got)) return false;
    Cursor cursor{text, text + got};
    *value = cursor.number(10);
    return cursor.ok;
}

bool contains(const Object &object, u64 address) {
    return address && object.low <= address && address < object.high;
}

void span_of(u64 load_bias, const Elf64_Phdr *headers, size_t count, u64 *low) {
    *low = ~0ull;
    for (size_t i = 0; i < count; ++i)
        if (headers[i].p_type == PT_LOAD && headers[i].p_memsz)
            *low = min(*low, round_down(load_bias + headers[i].p_vaddr, kPageSize));
}

}  // namespace

bool matches_any(const Array<char> &patterns, Str path) {
    for (size_t at = 0; at < patterns.size();) {
        const Str pattern = str(patterns.data() + at);
        if (glob_match(pattern, path)) return true;
        at += pattern.size + 1;
    }
    return false;
}

Outcome check_machine(u64 page_size) {
    // With pages of 4 KiB a page table maps 2 MiB, on x86_64 and aarch64 alike.
    return page_size == kPageSize ? done() : Outcome{Status::unsupported, Call::none, 0};
}

const Region *Table::find(u64 low, u64 headers) const {
    for (const Region *region : regions_)
        if (region->object.low == low && region->object.headers == headers) return region;
    return nullptr;
}

Region *Table::find(u64 low, u64 headers) {
    for (size_t i = 0; i < regions_.size(); ++i) {
        const size_t at = (next_ + i) % regions_.size();
        Region *region = regions_[at];
        if (region->object.low != low || region->object.headers != headers) continue;
        next_ = at + 1;
        return region;
    }
    return nullptr;
}

bool Table::knows(u64 load_bias, const Elf64_Phdr *headers, size_t count) const {
    u64 low;
    span_of(load_bias, headers, count, &low);
    const Region *region = find(low, reinterpret_cast<u64>(headers));
    return region && !region->fresh;
}

void Table::begin_listing() {
    for (Region *region : regions_) region->seen = false;
    next_ = 0;
}

bool Table::list(u64 load_bias, const Elf64_Phdr *headers, size_t count, bool is_main,
                 bool lasting) {
    if (lasting) {
        u64 low;
        span_of(load_bias, headers, count, &low);
        if (Region *known = find(low, reinterpret_cast<u64>(headers))) {
            known->seen = true;
            return true;
        }
    }
    void *memory = allocate(sizeof(Region));
    if (!memory) return false;
    auto *region = new (memory) Region;
    const auto drop = [&] {
        region->~Region();
        release(region, sizeof(Region));
    };
    if (!read_object(load_bias, headers, count, is_main, &region->object)) {
        drop();
        return false;
    }
    region->object.bti = region->object.bti && bti_;
    region->candidate = is_main || may_be_coverable(load_bias, headers, count);
    const Object &object = region->object;
    if (object.segments.empty()) {
        drop();
        return true;
    }
    if (Region *old = find(object.low, object.headers)) {
        // Another object may have come to the same place: then the old one is not seen again.
        // Segments are not compared: the headers in memory are the store copy's once swapped.
        const Object &known = old->object;
        const bool same =
            known.high == object.high && known.build_id.size == object.build_id.size &&
            compare(known.build_id.bytes, object.build_id.bytes, object.build_id.size) == 0;
        if (same) {
            old->seen = true;
            drop();
            return true;
        }
    }
    if (!regions_.push(region)) {
        drop();
        return false;
    }
    return true;
}

void Table::end_listing() {
    for (size_t i = regions_.size(); i-- > 0;)
        if (!regions_[i]->seen) remove(i);
}

void Table::remove(size_t index) {
    Region *region = regions_[index];
    discard_retired(*region);
    region->~Region();
    release(region, sizeof(Region));
    for (size_t i = index + 1; i < regions_.size(); ++i) regions_[i - 1] = regions_[i];
    [[maybe_unused]] const bool shrunk = regions_.resize(regions_.size() - 1);
}

// A library that was closed and opened again at the same place has fresh mappings: what we know of
// its pages is history then, and another library may be there. Ours is one executable mapping over
// the whole run, of the original file where that is the backing, else of a name of ours.
bool Table::still_ours(const Region &region, const Array<PlainMapping> &around) {
    if (region.half_restored) return true;  // until restore() comes to its end
    bool ours = true;
    each_run(
        region.pages, [](const HugePage &page) { return page.state == HugePage::State::huge; },
        [&](size_t first, size_t count) {
            const u64 start = region.address_of(first), end = start + count * kHugeSize;
            u64 at = start;
            for (const PlainMapping &mapping : around) {
                if (mapping.end <= at) continue;
                if (mapping.start > at || at >= end) break;
                const bool original = mapping.inode == region.inode &&
                                      mapping.dev_major == region.dev_major &&
                                      mapping.dev_minor == region.dev_minor;
                const bool named = region.backing == Backing::file ? original : mapping.named_ours;
                if (!mapping.executable || !named) break;
                at = mapping.end;
            }
            if (at < end) ours = false;
        });
    return ours;
}

namespace {

bool in_scope(const Region &region, Table::Scope scope) {
    if (scope == Table::Scope::all) return true;
    return region.candidate && (scope == Table::Scope::candidates || region.fresh);
}

// Whether content that is swapped in, other than the original file, has a name like this.
bool is_our_name(const Mapping &mapping) {
    if (!mapping.inode) return true;  // anonymous
    if (starts_with(mapping.path, str("/memfd:pyhugetext:")) ||
        starts_with(mapping.path, str("/anon_hugepage")))
        return true;
    constexpr const char *kStored = "/v1/objects/";
    for (Str rest = mapping.path; rest.size; ++rest.data, --rest.size)
        if (starts_with(rest, str(kStored))) return true;
    return false;
}

// Whether a file has that name that the kernel knows by the same number: a name may really hold
// what stands for a newline in maps.
bool is_name_of(const char *path, const Mapping &mapping) {
    bool doubtful = false;
    for (const char *at = path; *at && !doubtful; ++at)
        doubtful = starts_with(str(at), str("\\012"));
    sys::FileIdentity file;
    return !doubtful ||
           (!sys::failed(sys::identify_path(path, &file)) && file.inode == mapping.inode);
}

// Keeps a mapping that is near a region, for planning it. False when memory ran out.
bool keep(Region &region, const Mapping &mapping, Array<PlainMapping> *kept) {
    const Object &object = region.object;
    const bool inside = mapping.start < object.high && mapping.end > object.low;
    // The name under which the kernel knows the original file. Of a region that is swapped it was
    // read before.
    if (inside && mapping.inode && region.path.empty() && mapping.path.size) {
        Array<char> &path = region.path;
        if (!path.append(mapping.path.data, mapping.path.size) || !path.push('\0')) return false;
        if (mapping.escaped && !is_name_of(path.data(), mapping) &&
            !path.resize(unescape(path.data(), path.size())))
            return false;
    }
    if (!kept->empty() && (*kept)[kept->size() - 1].start >= mapping.start) return true;
    return kept->push({mapping.start, mapping.end, mapping.offset, mapping.inode, mapping.dev_major,
                       mapping.dev_minor, mapping.readable, mapping.writable, mapping.executable,
                       mapping.shared, is_our_name(mapping)});
}

}  // namespace

// Plans a region anew unless it is swapped and still ours.
Outcome Table::plan_again(Region &region, const Array<PlainMapping> &around, bool *replaced) const {
    if (region.any_huge()) {
        if (still_ours(region, around)) return done();
        region.backing = Backing::none;
        region.outcome = {};
        region.fresh = true;
        for (Outcome &tried : region.tried) tried = {};
        region.pages.clear();
        discard_retired(region);
        *replaced = true;
        return done();
    }
    const Outcome before = region.outcome;
    if (!plan(region, around, inward_)) return {Status::no_memory, Call::none, 0};
    // What was decided before stays said until it is decided anew.
    if (region.outcome.status == Status::pending && before.status != Status::huge &&
        before.status != Status::partial)
        region.outcome = before;
    return done();
}

long Table::observe(Scope scope) {
    if (scope == Scope::fresh) {
        const long error = observe_fresh();
        if (!error) return 0;  // else an older kernel
    }
    bool replaced = false;
    const long error = observe_once(scope, &replaced);
    // What is mapped now in place of ours has to be looked at with fresh eyes.
    return !error && replaced ? observe_once(scope, &replaced) : error;
}

long Table::observe_fresh() {
    MapsQuery query(true);
    Array<PlainMapping> around;
    mapping_count_ = 0;
    for (Region *region : regions_) {
        if (!in_scope(*region, Scope::fresh) || region->any_huge()) continue;
        const Object &object = region->object;
        around.clear();
        region->path.clear();
        bool memory = true;
        const long error = query.each(object.low > kHugeSize ? object.low - kHugeSize : 0,
                                      object.high + kHugeSize, [&](const Mapping &mapping) {
                                          ++mapping_count_;
                                          memory = keep(*region, mapping, &around);
                                          return memory;
                                      });
        if (error) return error;
        bool replaced;
        if (!memory || !plan_again(*region, around, &replaced).ok()) return -sys::kEnomem;
    }
    return 0;
}

long Table::observe_once(Scope scope, bool *replaced) {
    // Only mappings near a region of interest are kept, so that a process with ten thousands of
    // them costs reading time and no memory.
    Array<PlainMapping> kept;
    bool memory = true;
    mapping_count_ = 0;
    for (Region *region : regions_)
        if (in_scope(*region, scope) && !region->any_huge()) region->path.clear();
    const long error = each_mapping([&](const Mapping &mapping) {
        ++mapping_count_;
        for (Region *region : regions_) {
            const Object &object = region->object;
            if (mapping.end + kHugeSize > object.low && mapping.start < object.high + kHugeSize &&
                in_scope(*region, scope))
                memory = memory && keep(*region, mapping, &kept);
        }
        return memory;
    });
    if (!memory) return -sys::kEnomem;
    if (error) return error;
    for (Region *region : regions_)
        if (in_scope(*region, scope) && !plan_again(*region, kept, replaced).ok())
            return -sys::kEnomem;
    return 0;
}

Outcome Table::filter(const Region &region, const Request &request) {
    for (const u64 address : request.keep_out)
        if (contains(region.object, address)) return {Status::own_code, Call::none, 0};
    if (region.coverable_bytes == 0) return {Status::too_small, Call::none, 0};
    const Str path = region.path_text();
    if (!request.include.empty() && !matches_any(request.include, path))
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
    if (request.private_limit < bytes || own > request.private_limit - bytes)
        return {Status::budget, Call::none, 0};
    if (bytes >= too_large_) return no_room_;
    const Outcome outcome = turn->take_private(backing, bytes, request.private_limit, own);
    // Who waits for another process may well have room.
    if (!outcome.ok() && outcome.call != Call::lock) {
        too_large_ = bytes;
        no_room_ = outcome;
    }
    return outcome;
}

// Builds all planned pages of a region with one backing and keeps those that are huge. On any
// failure nothing of it is left.
Outcome Table::build_region(Region &region, Backing backing, const Request &request,
                            const Sources &sources) {
    u64 bytes = 0;
    for (const HugePage &page : region.pages)
        if (page.state == HugePage::State::small) bytes += kHugeSize;
    // Until what is built counts as taken.
    MemoryTurn turn;
    if (is_private(backing)) {
        const Outcome allowed = may_copy(backing, bytes, request, &turn);
        if (!allowed.ok()) return allowed;
    }

    const bool refusing = refusal_.status == Status::refused &&
                          region.dev_major == refusing_major_ &&
                          region.dev_minor == refusing_minor_;
    if (backing == Backing::file && refusing) return refusal_;

    Outcome outcome = done();
    size_t ready = 0;
    Outcome small = {Status::no_huge_page, Call::none, 0};
    each_run(
        region.pages, [](const HugePage &page) { return page.state == HugePage::State::small; },
        [&](size_t first, size_t count) {
            if (!outcome.ok()) return;
            Aside aside;
            outcome = build(backing, region, sources, region.address_of(first), count * kHugeSize,
                            &aside);
            if (!outcome.ok()) return;
            if (small.call == Call::none) small = aside.small;
            Array<u8> huge;
            if (!huge.resize(count) || !region.asides.push(aside)) {
                discard(aside.address, aside.length);
                outcome = {Status::no_memory, Call::none, 0};
                return;
            }
            if (backing == Backing::store) {
                // Not touched yet, so not there yet: the builder tried the file system, and
                // statistics tell what became of it.
                for (size_t i = 0; i < count; ++i) huge[i] = 1;
            } else if (const long error =
                           sources.pagemap.find_huge(aside.address, count, huge.data())) {
                outcome = {Status::unreadable, Call::pagemap, static_cast<u16>(-error)};
                return;
            }
            for (size_t i = 0; i < count; ++i) {
                HugePage &page = region.pages[first + i];
                page.ready = huge[i];
                if (!huge[i]) page.outcome = aside.small;
                ready += huge[i];
            }
        });
    if (outcome.ok() && ready == 0) outcome = small;
    if (backing == Backing::file && outcome.call == Call::collapse &&
        outcome.error == sys::kEinval) {
        refusal_ = outcome;
        refusing_major_ = region.dev_major;
        refusing_minor_ = region.dev_minor;
    }
    if (!outcome.ok()) {
        for (const Aside &aside : region.asides) discard(aside.address, aside.length);
        region.asides.clear();
        for (HugePage &page : region.pages) page.ready = 0;
    } else if (is_private(backing)) {
        prepared_private_ += ready * kHugeSize;
    }
    return outcome;
}

// Tries the backing that was asked for, or one after the other, and records what came of each.
void Table::choose(Region &region, const Request &request, const Sources &sources) {
    for (Outcome &tried : region.tried) tried = {};
    region.backing = Backing::none;
    const auto attempt = [&](Backing backing) {
        region.outcome = build_region(region, backing, request, sources);
        region.tried[static_cast<int>(backing)] = region.outcome;
        if (region.outcome.ok()) region.backing = backing;
        const bool stored = backing == Backing::store || backing == Backing::shm;
        if (stored && region.outcome.ok()) leave_witness(region, sources.original.fd());
        region.missing = region.missing || (stored && region.outcome.buildable);
        return region.outcome.ok();
    };
    if (request.backing != Backing::automatic) {
        attempt(request.backing);
    } else {
        for (const Backing backing : kLadder) {
            if (attempt(backing)) break;
            // Building the entry comes before a private copy, if somebody is to do it.
            if (request.building != Building::never && backing == Backing::shm && region.missing)
                break;
        }
    }
    region.missing = region.missing && region.backing == Backing::none;
}

void Table::prepare(const Request &request, Scope scope) {
    // Who asks for shared memory alone has nothing to do with the disk's layer.
    const bool always = request.building == Building::always;
    const bool on_overlay = always || request.backing == Backing::shm;
    const Stores stores(request.stores, request.shm_stores, on_overlay, always, pagemap_);
    u64 map_limit = 0;
    const bool limited = read_number("/proc/sys/vm/max_map_count", &map_limit);
    if (limited && scope == Scope::fresh && map_limit < kAmpleMaps) {
        mapping_count_ = 0;
        each_mapping([&](const Mapping &) { return ++mapping_count_ > 0; });
    }
    prepared_private_ = 0;
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
        if (const long error = outcome.ok() ? pagemap_.open() : 0)
            outcome = {Status::unreadable, Call::pagemap, static_cast<u16>(-error)};
        if (outcome.ok() && limited && mapping_count_ + kMapsPerRegion + kMapMargin > map_limit)
            outcome = {Status::map_count, Call::none, 0};
        if (!outcome.ok()) {
            if (!rest) region->outcome = outcome;
            continue;
        }
        if (!rest) region->file = {};
        Original original;
        const Outcome opened = original.open(*region);
        const Sources sources = {pagemap_, stores, original, opened};
        if (rest) {
            if (build_region(*region, region->backing, request, sources).ok())
                mapping_count_ += kMapsPerRegion;
            region->elapsed_ns += sys::since(began);
            continue;
        }
        if (opened.ok()) region->file = original.file();
        choose(*region, request, sources);
        region->elapsed_ns = sys::since(began);
        if (region->backing != Backing::none) mapping_count_ += kMapsPerRegion;
    }
}

void Table::finish(Region &region, Backing backing) {
    size_t huge = 0, planned = 0;
    Outcome worst = done();
    for (const HugePage &page : region.pages) {
        if (page.state == HugePage::State::unusable) continue;
        ++planned;
        if (page.state == HugePage::State::huge)
            ++huge;
        else
            worst = page.outcome;
    }
    region.backing = huge ? backing : Backing::none;
    region.outcome = worst;
    if (huge && huge < planned) region.outcome.status = Status::partial;
}

void Table::commit() {
    MapsQuery query(false);
    for (Region *region : regions_) {
        if (region->asides.empty()) continue;
        const u64 began = sys::now();
        pht::commit(*region, pagemap_, query);
        finish(*region, region->backing);
        region->elapsed_ns += sys::since(began);
    }
    pagemap_.close();
    prepared_private_ = 0;
}

void Table::abandon() {
    for (Region *region : regions_) {
        if (region->asides.empty()) continue;
        for (const Aside &aside : region->asides) discard(aside.address, aside.length);
        region->asides.clear();
        for (HugePage &page : region->pages) page.ready = 0;
        if (region->any_huge()) continue;
        region->backing = Backing::none;
        region->outcome = {};
        region->fresh = true;
    }
    pagemap_.close();
    prepared_private_ = 0;
}

void Table::restore(Backing keep) {
    const Stores none({}, {}, false, false, pagemap_);
    for (Region *region : regions_) {
        if (!region->any_huge() || region->backing == keep) continue;
        if (const long error = pagemap_.open()) {
            region->outcome = {Status::unreadable, Call::pagemap, static_cast<u16>(-error)};
            continue;
        }
        Original original;
        const Outcome opened = original.open(*region);
        pht::restore(*region, {pagemap_, none, original, opened});
        Outcome outcome = {Status::restored, Call::none, 0};
        for (const HugePage &page : region->pages)
            if (page.state == HugePage::State::huge) outcome = page.outcome;
        region->outcome = outcome;
        if (!region->any_huge()) region->backing = Backing::none;
    }
    pagemap_.close();
}

size_t Table::missing() const {
    size_t n = 0;
    for (const Region *region : regions_) n += region->missing;
    return n;
}

u64 Table::private_bytes() const {
    u64 bytes = 0;
    for (const Region *region : regions_)
        if (is_private(region->backing)) bytes += region->swapped_bytes();
    return bytes;
}

}  // namespace pht
