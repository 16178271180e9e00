// The environment variables, read once: what start-up, the package and other hosts of the engine
// ask for. A malformed value is told in a sentence, and its default used.
#pragma once

#include "kernel/strings.h"
#include "words/request.h"

namespace pht {

inline constexpr u64 kNoLimit = ~0ull >> 1;
inline constexpr const char *kSystemStore = "/var/cache/pyhugetext";

inline constexpr const char *kVariables[] = {
    "PYHUGETEXT",
    "PYHUGETEXT_BACKING",
    "PYHUGETEXT_BUILD",
    "PYHUGETEXT_BUILD_TIME",
    "PYHUGETEXT_DEBUG",
    "PYHUGETEXT_EXCLUDE",
    "PYHUGETEXT_INCLUDE",
    "PYHUGETEXT_MIN_TEXT",
    "PYHUGETEXT_PRIVATE_LIMIT",
    "PYHUGETEXT_REPORT",
    "PYHUGETEXT_SHM_LIMIT",
    "PYHUGETEXT_STORE",
    "PYHUGETEXT_STORE_LIMIT",
    "PYHUGETEXT_STRICT",
};

class Settings : NonCopyable {
public:
    // Of an environment (as environ(7)); nullptr: none.
    explicit Settings(const char *const *environment);

    // Those of this process, read when they are first asked for.
    static const Settings &of_process();

    // Whether an environment turns everything off and wants nobody told: cheaper than reading it.
    static bool silently_off(const char *const *environment);

    bool off = false, debug = false;
    const Request &request() const { return request_; }
    Str problems() const;  // sentences, each ended by a NUL
    // Where a preloaded program writes what was done when it ends; see preload/report.cpp.
    Str report() const { return {report_.data(), report_.size()}; }

private:
    void read(Str name, Str value);
    template <class Choice, size_t N>
    bool choose(Str name, Str value, const Choice (&choices)[N], decltype(Choice::value) *out,
                const char *allowed);
    void read_size(Str name, Str value, u64 *out);
    void read_time(Str name, Str value, u64 *out);
    void read_store(Str value);
    void read_report(Str value);
    static void split(Str value, MappedArray<char> *out);
    void add_default_stores(const char *const *environment);
    void complain(Str name, Str value, const char *rest);

    Request request_;
    MappedArray<char> include_, exclude_, stores_, shm_stores_, problems_;  // what it refers to
    MappedArray<char> user_store_, report_;
    bool starved_ = false;
};

}  // namespace pht
