// What is mapped now: planning from it, and noticing what was replaced behind our back.
#include "elf/plan.h"
#include "text/displace.h"
#include "text/table.h"

namespace pht {

namespace {

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
    return !doubtful || (sys::identify_path(path, &file).ok() && file.inode == mapping.inode);
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

// Plans a region anew unless it is swapped and still ours.
Outcome Table::plan_again(Region &region, const Array<PlainMapping> &around, bool *replaced) const {
    if (region.any_huge()) {
        if (still_ours(region, around)) return done();
        region.backing = Backing::none;
        region.outcome = {};
        region.fresh = true;
        for (Outcome &tried : region.tried) tried = {};
        region.pages.clear();
        discard_displaced(region);
        *replaced = true;
        return done();
    }
    const Outcome before = region.outcome;
    if (!plan(region, around, inward_)) return {Status::no_memory, Call::none, 0};
    // What was decided before stays said until it is decided anew.
    if (region.outcome.status == Status::pending && !before.ok()) region.outcome = before;
    return done();
}

ErrorOr<void> Table::observe(Scope scope) {
    if (scope == Scope::fresh || scope == Scope::waiting) {
        const auto seen = observe_few(scope);
        if (seen.ok()) return seen;  // else an older kernel
    }
    bool replaced = false;
    const auto seen = observe_once(scope, &replaced);
    // What is mapped now in place of ours has to be looked at with fresh eyes.
    return seen.ok() && replaced ? observe_once(scope, &replaced) : seen;
}

// What is swapped is looked at before it is touched, and stays as it was planned.
ErrorOr<void> Table::observe_few(Scope scope) {
    MapsQuery query(true);
    Array<PlainMapping> around;
    mapping_count_ = 0;
    for (Region *region : regions_) {
        if (!in_scope(*region, scope) || region->any_huge()) continue;
        const Object &object = region->object;
        around.clear();
        region->path.clear();
        bool memory = true;
        const auto seen = query.each(object.low > kHugeSize ? object.low - kHugeSize : 0,
                                     object.high + kHugeSize, [&](const Mapping &mapping) {
                                         ++mapping_count_;
                                         memory = keep(*region, mapping, &around);
                                         return memory;
                                     });
        if (!seen.ok()) return seen;
        bool replaced;
        if (!memory || !plan_again(*region, around, &replaced).ok()) return Error{ENOMEM};
    }
    return {};
}

ErrorOr<void> Table::observe_once(Scope scope, bool *replaced) {
    // Only mappings near a region of interest are kept, so that a process with ten thousands of
    // them costs reading time and no memory.
    Array<PlainMapping> kept;
    bool memory = true;
    mapping_count_ = 0;
    for (Region *region : regions_)
        if (in_scope(*region, scope) && !region->any_huge()) region->path.clear();
    const auto seen = each_mapping([&](const Mapping &mapping) {
        ++mapping_count_;
        for (Region *region : regions_) {
            const Object &object = region->object;
            if (mapping.end + kHugeSize > object.low && mapping.start < object.high + kHugeSize &&
                in_scope(*region, scope))
                memory = memory && keep(*region, mapping, &kept);
        }
        return memory;
    });
    if (!memory) return Error{ENOMEM};
    if (!seen.ok()) return seen;
    for (Region *region : regions_)
        if (in_scope(*region, scope) && !plan_again(*region, kept, replaced).ok())
            return Error{ENOMEM};
    return {};
}

}  // namespace pht
