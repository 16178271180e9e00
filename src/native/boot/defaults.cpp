#include "defaults.h"

#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

namespace pht {

namespace {

constexpr Str kNul = {"", 1};

// Adds an absolute directory without the slashes at its end; false where it is none, or too long
// for a path.
template <size_t N> bool add_directory(const char *name, Buffer<N> *out) {
    if (!name || name[0] != '/') return false;
    size_t size = length(name);
    while (size > 0 && name[size - 1] == '/') --size;
    if (size + 64 > N) return false;
    out->add({name, size});
    return true;
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
    stores_.add(kSystemStore).add(kNul);
    if (!secure) {
        if (add_directory(getenv("XDG_CACHE_HOME"), &user_store_))
            stores_.add(user_store_.data).add("/pyhugetext").add(kNul);
        else if (add_directory(getenv("HOME"), &user_store_))
            stores_.add(user_store_.data).add("/.cache/pyhugetext").add(kNul);
        // Where it has a group's rights or capabilities, its user is its caller.
        shm_store_.add("/dev/shm/pyhugetext-").add_decimal(geteuid()).add(kNul);
    }
    plain_ = {Backing::automatic,
              kMinimumText,
              kPrivateLimit,
              secure ? Building::never : Building::automatic,
              {"", 0},
              {"", 0},
              {stores_.data, stores_.size},
              {shm_store_.data, shm_store_.size}};
}

}  // namespace pht
