#include "stores.h"

#include "memory_limit.h"
#include "trust.h"

namespace pht {

namespace {

// Whether a directory, or what there is of the way to it, is on overlayfs.
bool is_on_overlay(const char *directory) {
    size_t size = length(directory);
    Room<kUsualPath> room;
    char *const path = size < kPathLimit ? room.take(size + 1) : nullptr;
    if (!path) return false;
    copy(path, directory, size + 1);
    u64 type = 0;
    while (sys::file_system(path, &type) == -sys::kEnoent && size > 1) {
        while (size > 1 && path[size - 1] != '/') --size;
        if (size > 1) --size;
        path[size] = 0;
    }
    return type == sys::kOverlayFs;
}

bool says_little(const Outcome &outcome) {
    return outcome.status == Status::no_store || outcome.status == Status::no_entry;
}

constexpr u64 kRoomToBuild = 16ul << 20;  // twice what a builder has mapped at a time

// Whether a limit of memory leaves less room than that. Where /proc does not tell, it is taken to.
bool is_cramped() {
    const u64 addresses = sys::resource_limit(sys::kLimitAddresses, sys::kUnlimited);
    const u64 data = sys::resource_limit(sys::kLimitData, sys::kUnlimited);
    if (addresses == sys::kUnlimited && data == sys::kUnlimited) return false;
    u64 used[2];
    if (!used_addresses(&used[0], &used[1])) return true;
    const auto near = [](u64 limit, u64 has) { return limit < has + kRoomToBuild; };
    return near(addresses, used[0]) || near(data, used[1]);
}

}  // namespace

Stores::Stores(const Array<char> &disk, const Array<char> &shm, bool on_overlay, bool when_cramped,
               const Pagemap &pagemap)
    : shared_{pagemap}, on_overlay_(on_overlay), when_cramped_(when_cramped) {
    const auto add = [&](const Array<char> &roots, Backing backing) {
        for (size_t at = 0; at < roots.size() && count_ < kMost;) {
            places_[count_].root = roots.data() + at;
            places_[count_].backing = backing;
            places_[count_].system = backing == Backing::store && at == 0;
            ++count_;
            at += length(roots.data() + at) + 1;
        }
    };
    add(disk, Backing::store);
    add(shm, Backing::shm);
}

Outcome Stores::may_build() const {
    if (!when_cramped_ && is_cramped()) return {Status::cramped, Call::none, 0};
    for (int i = 0; i < count_ && !on_overlay_; ++i) {
        const Place &place = places_[i];
        if (place.backing == Backing::store && !place.system && is_on_overlay(place.root))
            return {Status::overlay, Call::none, 0};
    }
    return done();
}

Outcome Stores::map(Backing backing, const Region &region, int original,
                    const sys::FileIdentity &file, u64 target, u64 length, u64 *address) const {
    Outcome result = {Status::no_store, Call::none, 0};
    for (int i = 0; i < count_; ++i) {
        Place &place = places_[i];
        if (place.backing != backing) continue;
        if (place.opened.status == Status::pending)
            place.opened = place.store.open(place.root, place.system, backing == Backing::shm);
        Outcome outcome = place.opened;
        if (outcome.ok())
            outcome = place.store.map(region, original, file, shared_, target, length, address);
        if (outcome.ok()) return outcome;
        const bool buildable = result.buildable || (outcome.buildable && !place.system);
        if (!says_little(outcome) || result.status == Status::no_store) result = outcome;
        result.buildable = buildable;
    }
    if (!result.buildable) return result;
    const Outcome allowed = may_build();
    if (allowed.ok()) return result;
    result.buildable = false;
    return says_little(result) ? allowed : result;
}

}  // namespace pht
