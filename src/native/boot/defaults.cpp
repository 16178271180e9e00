#include "defaults.h"

#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

namespace pht {

namespace {

constexpr Str kNul = {"", 1};

constexpr size_t kLongest = 4096 - 64;  // of a directory, so that names below it fit a path

// An absolute directory without the slashes at its end; of the root nothing is left. False where it
// is none, or too long.
bool read_directory(const char *name, Str *out) {
    if (!name || name[0] != '/') return false;
    *out = str(name);
    while (out->size > 0 && name[out->size - 1] == '/') --out->size;
    return out->size <= kLongest;
}

}  // namespace

bool in_secure_mode() {
    return getauxval(AT_SECURE) != 0;
}

bool is_configured() {
    if (in_secure_mode() || !environ) return false;
    for (char **at = environ; *at; ++at)
        if (starts_with(str(*at), str("PYHUGETEXT"))) return true;
    return false;
}

DefaultRequest::DefaultRequest() {
    const bool secure = in_secure_mode();
    Str base = {"", 0}, below = {"", 0};
    if (!secure) {
        if (read_directory(getenv("XDG_CACHE_HOME"), &base))
            below = str("/pyhugetext");
        else if (read_directory(getenv("HOME"), &base))
            below = str("/.cache/pyhugetext");
        else
            base = {"", 0};
        // Where it has a group's rights or capabilities, its user is its caller.
        shm_store_.add("/dev/shm/pyhugetext-").add_decimal(geteuid()).add(kNul);
    }
    Str stores = {"", 0};
    const Str parts[] = {str(kSystemStore), kNul, base, below, kNul};
    size_t size = 0;
    for (const Str part : parts) size += part.size;
    // Where there is no memory, there is no store.
    if (char *at = room_.take(size)) {
        stores = {at, below.size ? size : size - kNul.size};
        for (const Str part : parts) {
            copy(at, part.data, part.size);
            at += part.size;
        }
    }
    plain_ = {Backing::automatic,
              kMinimumText,
              kPrivateLimit,
              secure ? Building::never : Building::automatic,
              {"", 0},
              {"", 0},
              stores,
              {shm_store_.data, shm_store_.size}};
}

}  // namespace pht
