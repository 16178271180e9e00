// What the settings, or a caller of remap(), ask for.
#pragma once

#include "kernel/memory.h"
#include "words/backing.h"

namespace pht {

// A share of the processor time that the process has taken.
inline constexpr u64 kAutomaticTime = ~0ull;

struct Request {
    Backing backing = Backing::automatic;  // one backing, or the ladder
    Building building = Building::never;   // what the stores lack waits until it was built
    u64 minimum_text = 0;                  // bytes; objects with less coverable text are left
    u64 private_limit = 0;                 // bytes of private memory, all regions together
    u64 store_limit = 0, shm_limit = 0;    // bytes that the stores may hold
    // Nanoseconds that building may keep this process waiting, altogether.
    u64 build_time = kAutomaticTime;
    u64 copy_time = ~0ull;   // of it, what is left for private copies now
    Str include, exclude;    // patterns on paths, each ended by a NUL
    Str stores, shm_stores;  // directories, each ended by a NUL; the system's first
    // Private copies only in a share of the processor time that was taken: a start makes none.
    bool frugal = false;
    // Only pages that are text from end to end, so that nothing becomes executable that was not:
    // PYHUGETEXT_STRICT; and the plan of other tools, for benchmarks. See plan().
    bool inward = false;
};

// Its numbers by the names that settings and callers use.
struct SizeField {
    const char *name;
    u64 Request::*member;
};
inline constexpr SizeField kSizeFields[] = {
    {"min_text", &Request::minimum_text},
    {"private_limit", &Request::private_limit},
    {"store_limit", &Request::store_limit},
    {"shm_limit", &Request::shm_limit},
};
inline constexpr SizeField kTimeFields[] = {{"build_time", &Request::build_time}};
// And its lists. Those of directories come from the settings alone.
struct ListField {
    const char *name;
    Str Request::*member;
};
inline constexpr ListField kListFields[] = {
    {"include", &Request::include},
    {"exclude", &Request::exclude},
    {"stores", &Request::stores},
    {"shm_stores", &Request::shm_stores},
};

// Where the user's store is by default, below the home; which is not ours to make.
inline constexpr const char *kBelowHome = "/.cache/pyhugetext";
// And in shared memory, with the user's number behind.
inline constexpr const char *kSharedStore = "/dev/shm/pyhugetext-";

// Calls visit() for each text of a list, until it returns false.
template <class Visit> void each_text(Str list, Visit visit) {
    for (size_t at = 0; at < list.size;) {
        size_t size = 0;
        while (list.data[at + size]) ++size;
        if (!visit(Str{list.data + at, size})) return;
        at += size + 1;
    }
}

// The store that this user writes to, on disk: the second, behind the system's, which an
// administrator fills; and in shared memory. NUL-terminated; nullptr where there is none.
inline const char *user_store(const Request &request) {
    const char *found = nullptr;
    each_text(request.stores, [&](Str root) {
        const bool own = root.data != request.stores.data;
        if (own) found = root.data;
        return !own;
    });
    return found;
}
inline const char *shared_store(const Request &request) {
    return request.shm_stores.size ? request.shm_stores.data : nullptr;
}

// Moves the texts of a request into an array, which then has to last as long as it. False where
// memory ran out.
template <class Memory> bool keep_texts(Request *request, Array<char, Memory> *texts) {
    Array<char, Memory> kept;
    for (const ListField &field : kListFields) {
        const Str &list = request->*field.member;
        if (!kept.append(list.data, list.size)) return false;
    }
    *texts = static_cast<Array<char, Memory> &&>(kept);
    const char *at = texts->data();
    for (const ListField &field : kListFields) {
        Str &list = request->*field.member;
        list.data = at;
        at += list.size;
    }
    return true;
}

}  // namespace pht
