#include "store/stores.h"

#include "limits/memory.h"
#include "store/trust.h"

namespace pht {

namespace {

// Whether a directory, or what there is of the way to it, is on overlayfs.
bool is_on_overlay(const char *directory) {
    size_t size = length(directory);
    Room<kUsualPath> room;
    char *const path = size < kPathLimit ? room.take(size + 1) : nullptr;
    if (!path) return false;
    copy(path, directory, size + 1);
    auto type = sys::file_system(path);
    while (type.error() == ENOENT && size > 1) {
        while (size > 1 && path[size - 1] != '/') --size;
        if (size > 1) --size;
        path[size] = 0;
        type = sys::file_system(path);
    }
    return type.ok() && type.value() == OVERLAYFS_SUPER_MAGIC;
}

// Whether a store that is not there can be made: whether what there is of the way to it may be
// written, and is more than the root directory's. A home that is missing is not ours to make: it
// may be meant not to exist, or not be mounted yet.
bool can_be_made(const char *directory) {
    size_t size = length(directory);
    const size_t least =
        ends_with({directory, size}, str(kBelowHome)) ? size - length(kBelowHome) : 1;
    Room<kUsualPath> room;
    char *const path = size < kPathLimit ? room.take(size + 1) : nullptr;
    if (!path) return false;
    copy(path, directory, size + 1);
    for (;;) {
        const auto may = sys::may_write(AT_FDCWD, path);
        if (may.error() != ENOENT) return may.ok();
        while (size > 1 && path[size - 1] != '/') --size;
        if (size > 1) --size;
        if (size < least || size <= 1) return false;
        path[size] = 0;
    }
}

constexpr u64 kRoomToBuild = 16ul << 20;  // twice what a builder has mapped at a time

// Whether a limit of memory leaves less room than that. Where /proc does not tell, it is taken to.
bool is_cramped() {
    const u64 addresses = sys::resource_limit(RLIMIT_AS, sys::kUnlimited);
    const u64 data = sys::resource_limit(RLIMIT_DATA, sys::kUnlimited);
    if (addresses == sys::kUnlimited && data == sys::kUnlimited) return false;
    u64 used[2];
    if (!used_addresses(&used[0], &used[1])) return true;
    const auto near = [](u64 limit, u64 has) { return limit < has + kRoomToBuild; };
    return near(addresses, used[0]) || near(data, used[1]);
}

}  // namespace

Stores::Stores(const Request &request, const Pagemap &pagemap)
    : shared_{pagemap},
      // Who asks for shared memory alone has nothing to do with the disk's layer.
      on_overlay_(request.building == Building::always || request.backing == Backing::shm),
      when_cramped_(request.building == Building::always) {
    const auto add = [&](Str roots, Backing backing) {
        each_text(roots, [&](Str root) {
            Candidate &candidate = candidates_[count_++];
            candidate.root = root.data;
            candidate.backing = backing;
            candidate.system = backing == Backing::store && root.data == roots.data;
            return count_ < kMost;
        });
    };
    add(request.stores, Backing::store);
    if (count_ < kMost) add(request.shm_stores, Backing::shm);
}

Outcome Stores::may_build() const {
    if (!when_cramped_ && is_cramped()) return {Status::cramped, Call::none, 0};
    for (int i = 0; i < count_ && !on_overlay_; ++i) {
        const Candidate &candidate = candidates_[i];
        if (candidate.backing == Backing::store && !candidate.system &&
            is_on_overlay(candidate.root))
            return {Status::overlay, Call::none, 0};
    }
    return done();
}

Outcome Stores::find(Candidate &candidate, const Region &region, int original,
                     const sys::FileIdentity &file, Entry *entry) const {
    if (candidate.opened.status == Status::pending)
        candidate.opened = candidate.store.open(candidate.root, candidate.system,
                                                candidate.backing == Backing::shm);
    if (!candidate.opened.ok()) return candidate.opened;
    const Outcome outcome = candidate.store.find(region, original, file, shared_, entry);
    // What came of a trial could not be noted: each start would try again.
    if (entry->is_untried() && !(can_build(candidate) && may_build().ok())) entry->take_as_tried();
    return outcome;
}

// A store that is not there yet can be made; the system's is an administrator's.
bool Stores::can_build(const Candidate &candidate) {
    return !candidate.system && (!candidate.opened.ok() || candidate.store.is_writable());
}

bool Stores::can_be_better() const {
    for (int i = 0; i < count_; ++i) {
        const Candidate &candidate = candidates_[i];
        if (candidate.backing != Backing::store || candidate.system) continue;
        const bool there = candidate.opened.ok();
        const bool missing = candidate.opened.status == Status::no_store;
        if ((there && candidate.store.is_writable()) || (missing && can_be_made(candidate.root)))
            return may_build().ok();
    }
    return false;
}

Outcome Stores::which_says_more(const Outcome &before, const Outcome &now) {
    Outcome result = before;
    if (!says_little(now) || before.status == Status::no_store) result = now;
    result.buildable = before.buildable || now.buildable;
    return result;
}

Outcome Stores::allow(const Outcome &outcome) const {
    const Outcome allowed = may_build();
    if (allowed.ok()) return outcome;
    Outcome result = says_little(outcome) ? allowed : outcome;
    result.buildable = false;
    return result;
}

}  // namespace pht
