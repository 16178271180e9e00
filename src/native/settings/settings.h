// The environment variables, read once: what start-up, the package and other hosts of the engine
// ask for. A malformed value is told in a sentence, and its default used.
#pragma once

#include "engine.h"

namespace pht {

inline constexpr u64 kNoLimit = ~0ull >> 1;
inline constexpr const char *kSystemStore = "/var/cache/pyhugetext";

inline constexpr const char *kVariables[] = {
    "PYHUGETEXT",
    "PYHUGETEXT_BACKING",
    "PYHUGETEXT_BUILD",
    "PYHUGETEXT_BUILD_LIMIT",
    "PYHUGETEXT_DEBUG",
    "PYHUGETEXT_EXCLUDE",
    "PYHUGETEXT_INCLUDE",
    "PYHUGETEXT_MIN_TEXT",
    "PYHUGETEXT_PRIVATE_LIMIT",
    "PYHUGETEXT_SHM_LIMIT",
    "PYHUGETEXT_STORE",
    "PYHUGETEXT_STORE_LIMIT",
};

// Whether the environment comes from somebody less privileged; see getauxval(3), AT_SECURE. Such a
// process takes nothing from it: no setting, no store of a user's, and nothing is built.
bool in_secure_mode();

// Bytes in a text like `512K`, `64M`, `2G`, `1048576` or `unlimited`; false where it is none.
bool parse_size(Str text, u64 *bytes);

class Settings {
public:
    // Of an environment (as environ(7)); nullptr: none.
    explicit Settings(const char *const *environment);
    Settings(const Settings &) = delete;
    Settings &operator=(const Settings &) = delete;

    // Those of this process, read when they are first asked for.
    static const Settings &of_process();

    bool off = false, debug = false;
    Backing backing = Backing::automatic;
    Building building = Building::automatic;
    u64 minimum_text = 256ull << 10;
    u64 private_limit = 64ull << 20;
    BuildLimits limits = {4ull << 30, 512ull << 20, 512ull << 20};
    // Each text ended by a NUL.
    Str include() const { return {include_.data(), include_.size()}; }
    Str exclude() const { return {exclude_.data(), exclude_.size()}; }
    Str stores() const { return {stores_.data(), stores_.size()}; }  // the system's first
    Str shm_stores() const { return {shm_stores_.data(), shm_stores_.size()}; }
    Str problems() const;

    PlainRequest request() const;

private:
    void read(Str name, Str value);
    template <class Choice, size_t N>
    bool choose(Str name, Str value, const Choice (&choices)[N], decltype(Choice::value) *out,
                const char *allowed);
    void read_size(Str name, Str value, u64 *out);
    void read_store(Str value);
    static void split(Str value, MappedArray<char> *out);
    void add_default_stores(const char *const *environment);
    void complain(Str name, Str value, const char *rest);

    MappedArray<char> include_, exclude_, stores_, shm_stores_, problems_;
    MappedArray<char> user_store_;
    bool starved_ = false;
};

}  // namespace pht
