#include "settings/settings.h"

#include <sys/auxv.h>
#include <unistd.h>

#include <new>

namespace pht {

namespace {

template <class Value> struct Choice {
    const char *name;
    Value value;
};

// `off` and its like are what people type; taking them for `on` would do harm.
constexpr Choice<bool> kSwitch[] = {
    {"0", true},   {"off", true},  {"no", true},    {"false", true}, {"1", false},
    {"on", false}, {"yes", false}, {"true", false}, {"auto", false},
};
constexpr Choice<bool> kFlag[] = {{"0", false}, {"1", true}};
constexpr Choice<Building> kBuilding[] = {
    {"auto", Building::automatic}, {"always", Building::always}, {"never", Building::never}};
constexpr Choice<Backing> choice(Backing backing) {
    return {name_of(backing), backing};
}
constexpr Choice<Backing> kBackingChoices[] = {choice(Backing::automatic), choice(Backing::file),
                                               choice(Backing::store),     choice(Backing::shm),
                                               choice(Backing::memfd),     choice(Backing::thp),
                                               choice(Backing::hugetlb)};

bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

Str strip(Str text) {
    while (text.size && is_space(text.data[0])) ++text.data, --text.size;
    while (text.size && is_space(text.data[text.size - 1])) --text.size;
    return text;
}

bool equal_but_case(Str text, const char *name) {
    if (text.size != length(name)) return false;
    for (size_t i = 0; i < text.size; ++i)
        if (lower(text.data[i]) != name[i]) return false;
    return true;
}

// How often memory was missing, in all settings that were read.
int starvations;

bool append(MappedArray<char> *out, Str text) {
    if (out->append(text.data, text.size)) return true;
    __atomic_add_fetch(&starvations, 1, __ATOMIC_RELAXED);
    return false;
}

// A text without what a terminal would obey, as Python's repr() has it between its quotes.
void append_escaped(MappedArray<char> *out, Str text, char quote) {
    const char *at = text.data, *end = at + text.size;
    while (at < end) {
        const char *start = at;
        const u32 character = take_character(&at, end);
        const auto hex = [&](const char *prefix, int digits) {
            append(out, str(prefix));
            for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
                append(out, {&"0123456789abcdef"[(character >> shift) & 15], 1});
        };
        if (character == static_cast<u32>(quote) || character == '\\') append(out, str("\\"));
        if (character == '\n')
            append(out, str("\\n"));
        else if (character == '\t')
            append(out, str("\\t"));
        else if (character == '\r')
            append(out, str("\\r"));
        else if (character < 0x20 || (character >= 0x7f && character < 0xa1) || character == 0xad)
            hex("\\x", 2);
        else if (character >= 0xd800 && character < 0xe000)
            hex("\\u", 4);
        else
            append(out, {start, static_cast<size_t>(at - start)});
    }
}

// A value as repr() shows it.
void append_quoted(MappedArray<char> *out, Str value) {
    bool single = false, twofold = false;
    for (size_t i = 0; i < value.size; ++i) {
        single = single || value.data[i] == '\'';
        twofold = twofold || value.data[i] == '"';
    }
    const char quote = single && !twofold ? '"' : '\'';
    append(out, {&quote, 1});
    append_escaped(out, value, quote);
    append(out, {&quote, 1});
}

constexpr Str kNul = {"", 1};

Str variable(const char *const *environment, const char *name) {
    for (const char *const *at = environment; at && *at; ++at) {
        const char *text = *at, *expected = name;
        while (*expected && *text == *expected) ++text, ++expected;
        if (!*expected && *text == '=') return str(text + 1);
    }
    return {};
}

bool is_absolute(Str name) {
    return name.size && name.data[0] == '/';
}
Str without_slashes(Str name) {
    while (name.size && name.data[name.size - 1] == '/') --name.size;
    return name;
}

// A whole number, at most `most`.
bool parse_number(Str text, u64 most, u64 *out) {
    constexpr size_t kMostDigits = 19;
    if (text.size == 0 || text.size > kMostDigits) return false;
    *out = 0;
    for (size_t i = 0; i < text.size; ++i) {
        if (text.data[i] < '0' || text.data[i] > '9') return false;
        *out = *out * 10 + static_cast<u64>(text.data[i] - '0');
    }
    return *out <= most;
}

bool is_unlimited(Str text, u64 *out) {
    if (!equal_but_case(text, "unlimited")) return false;
    *out = kNoLimit;
    return true;
}

// Bytes in a text like `512K`, `64M`, `2G`, `1048576` or `unlimited`; false where it is none.
bool parse_size(Str text, u64 *bytes) {
    text = strip(text);
    if (is_unlimited(text, bytes)) return true;
    unsigned shift = 0;
    const char unit = text.size ? lower(text.data[text.size - 1]) : '\0';
    if (unit == 'k') shift = 10;
    if (unit == 'm') shift = 20;
    if (unit == 'g') shift = 30;
    if (shift) --text.size;
    u64 value;
    if (!parse_number(text, kNoLimit >> shift, &value)) return false;
    *bytes = value << shift;
    return true;
}

// Nanoseconds in a text like `250ms`, `2s`, `0` or `unlimited`; false where it is none.
bool parse_time(Str text, u64 *nanoseconds) {
    text = strip(text);
    if (is_unlimited(text, nanoseconds)) return true;
    u64 unit = 0;
    if (text.size && lower(text.data[text.size - 1]) == 's') {
        --text.size;
        unit = 1'000'000'000;
        if (text.size && lower(text.data[text.size - 1]) == 'm') {
            --text.size;
            unit = 1'000'000;
        }
    }
    u64 value;
    // Without a unit nothing but zero is clear.
    if (!parse_number(text, unit ? kNoLimit / unit : 0, &value)) return false;
    *nanoseconds = value * unit;
    return true;
}

alignas(Settings) char storage[sizeof(Settings)];
int ready;  // 0: not read, 1: somebody reads, 2: read

}  // namespace

Settings::Settings(const char *const *environment) {
    const int before = __atomic_load_n(&starvations, __ATOMIC_RELAXED);
    // Where the environment comes from somebody less privileged nothing is taken from it: no
    // setting, no store of a user's, and nothing is built. See getauxval(3), AT_SECURE.
    const bool secure = getauxval(AT_SECURE) != 0;
    request_.building = Building::automatic;
    request_.minimum_text = 256ull << 10;
    request_.private_limit = 64ull << 20;
    request_.store_limit = 4ull << 30;
    request_.shm_limit = 512ull << 20;
    if (secure) {
        environment = nullptr;
        request_.building = Building::never;
    }
    // In the order of their names, so that problems are told in the same order each time.
    for (const char *name : kVariables) {
        const Str value = variable(environment, name);
        if (value.data) read(str(name), value);
    }
    constexpr const char *kPrefix = "PYHUGETEXT";
    for (const char *const *at = environment; at && *at; ++at) {
        Str name = str(*at);
        if (!starts_with(name, str(kPrefix))) continue;
        size_t size = 0;
        while (size < name.size && name.data[size] != '=') ++size;
        name.size = size;
        bool known = false;
        for (const char *one : kVariables) known = known || equal(name, str(one));
        if (known) continue;
        append_escaped(&problems_, name, '\'');
        append(&problems_, str(" is no setting of pyhugetext and was ignored; there are: "));
        for (const char *one : kVariables) {
            if (one != kVariables[0]) append(&problems_, str(", "));
            append(&problems_, str(one));
        }
        append(&problems_, kNul);
    }
    // Without it what comes next would be taken for the system's store.
    if (append(&stores_, str(kSystemStore)) && append(&stores_, kNul) && !secure)
        add_default_stores(environment);
    const auto text = [](const MappedArray<char> &list) { return Str{list.data(), list.size()}; };
    request_.include = text(include_);
    request_.exclude = text(exclude_);
    request_.stores = text(stores_);
    request_.shm_stores = text(shm_stores_);
    starved_ = __atomic_load_n(&starvations, __ATOMIC_RELAXED) != before;
}

const Settings &Settings::of_process() {
    int expected = 0;
    if (__atomic_compare_exchange_n(&ready, &expected, 1, false, __ATOMIC_ACQUIRE,
                                    __ATOMIC_ACQUIRE)) {
        new (storage) Settings(environ);
        __atomic_store_n(&ready, 2, __ATOMIC_RELEASE);
    }
    while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) != 2) (void)sys::pause(10'000);
    return *std::launder(reinterpret_cast<Settings *>(storage));
}

bool Settings::silently_off(const char *const *environment) {
    const Str key = strip(variable(environment, "PYHUGETEXT"));
    bool off = false;
    for (const auto &choice : kSwitch)
        if (equal_but_case(key, choice.name)) off = choice.value;
    return off && !variable(environment, "PYHUGETEXT_DEBUG").size &&
           !variable(environment, "PYHUGETEXT_REPORT").size;
}

void Settings::complain(Str name, Str value, const char *rest) {
    append(&problems_, name);
    append(&problems_, str("="));
    append_quoted(&problems_, value);
    append(&problems_, str(rest));
    append(&problems_, kNul);
}

template <class Choice, size_t N>
bool Settings::choose(Str name, Str value, const Choice (&choices)[N], decltype(Choice::value) *out,
                      const char *allowed) {
    const Str key = strip(value);
    if (key.size == 0) return true;
    for (const Choice &choice : choices) {
        if (!equal_but_case(key, choice.name)) continue;
        *out = choice.value;
        return true;
    }
    Buffer<160> rest;
    rest.add(" is not one of ");
    if (*allowed) rest.add(allowed);
    for (size_t i = 0; !*allowed && i < N; ++i) rest.add(i ? ", " : "").add(choices[i].name);
    rest.add("; the default is used");
    complain(name, value, rest.data);
    return false;
}

void Settings::read_size(Str name, Str value, u64 *out) {
    if (strip(value).size == 0 || parse_size(value, out)) return;
    Buffer<160> rest;
    rest.add(" is not a size (bytes, with K, M or G, below 8E; or 'unlimited'); the default ");
    rest.add_decimal(*out).add(" is used");
    complain(name, value, rest.data);
}

void Settings::read_time(Str name, Str value, u64 *out) {
    if (strip(value).size == 0 || parse_time(value, out)) return;
    complain(name, value,
             " is not a time (a whole number with 'ms' or 's', 0, or 'unlimited'); the default is "
             "used");
}

void Settings::split(Str value, MappedArray<char> *out) {
    while (value.size) {
        size_t size = 0;
        while (size < value.size && value.data[size] != ':') ++size;
        if (size) {
            append(out, {value.data, size});
            append(out, kNul);
        }
        if (size < value.size) ++size;
        value = {value.data + size, value.size - size};
    }
}

// As Python's os.path.normpath: one slash between two steps, no `.`, and `..` taken with the step
// before it.
void Settings::read_store(Str value) {
    if (value.size == 0) return;
    if (value.data[0] != '/')
        return complain(str("PYHUGETEXT_STORE"), value,
                        " is no absolute path; the default is used");
    for (Str rest = value; rest.size;) {
        while (rest.size && *rest.data == '/') ++rest.data, --rest.size;
        size_t size = 0;
        while (size < rest.size && rest.data[size] != '/') ++size;
        const Str step = {rest.data, size};
        rest = {rest.data + size, rest.size - size};
        if (size == 0 || equal(step, str("."))) continue;
        if (equal(step, str(".."))) {
            size_t kept = user_store_.size();
            while (kept > 0 && user_store_[kept - 1] != '/') --kept;
            if (kept > 0) (void)user_store_.resize(kept - 1);
            continue;
        }
        append(&user_store_, str("/"));
        append(&user_store_, step);
    }
    if (user_store_.empty()) append(&user_store_, str("/"));
}

void Settings::read_report(Str value) {
    if (is_absolute(value))
        append(&report_, value);
    else if (value.size)
        complain(str("PYHUGETEXT_REPORT"), value, " is no absolute path; no report is written");
}

void Settings::read(Str name, Str value) {
    constexpr size_t kFront = 10;  // PYHUGETEXT
    const Str suffix = {name.data + kFront, name.size - kFront};
    const auto is = [&](const char *wanted) { return equal(suffix, str(wanted)); };
    if (is("")) choose(name, value, kSwitch, &off, "0, 1, auto");
    if (is("_DEBUG")) choose(name, value, kFlag, &debug, "");
    if (is("_BACKING")) choose(name, value, kBackingChoices, &request_.backing, "");
    if (is("_BUILD")) choose(name, value, kBuilding, &request_.building, "");
    if (is("_BUILD_TIME")) read_time(name, value, &request_.build_time);
    for (const SizeField &field : kSizeFields)
        if (suffix.size && equal_but_case({suffix.data + 1, suffix.size - 1}, field.name))
            read_size(name, value, &(request_.*field.member));
    if (is("_INCLUDE")) split(value, &include_);
    if (is("_EXCLUDE")) split(value, &exclude_);
    if (is("_STORE")) read_store(value);
    if (is("_REPORT")) read_report(value);
    if (is("_STRICT")) choose(name, value, kFlag, &request_.inward, "");
}

void Settings::add_default_stores(const char *const *environment) {
    const Str cache = variable(environment, "XDG_CACHE_HOME");
    const Str home = variable(environment, "HOME");
    const auto add = [&](Str directory, const char *below) {
        append(&stores_, without_slashes(directory));
        append(&stores_, str(below));
        append(&stores_, kNul);
    };
    constexpr size_t kLongest = 4096 - 64;
    if (!user_store_.empty()) {
        append(&stores_, {user_store_.data(), user_store_.size()});
        append(&stores_, kNul);
    } else if (is_absolute(cache) && cache.size < kLongest) {
        add(cache, "/pyhugetext");
    } else if (is_absolute(home) && home.size < kLongest) {
        add(home, kBelowHome);
    }
    // Where it has a group's rights or capabilities, its user is its caller.
    Buffer<64> shared;
    shared.add(kSharedStore).add_decimal(geteuid()).add(kNul);
    append(&shm_stores_, {shared.data, shared.size});
}

Str Settings::problems() const {
    static constexpr char kStarved[] = "the settings were not read: no memory for own tables";
    if (starved_) return {kStarved, sizeof kStarved};
    return {problems_.data(), problems_.size()};
}

}  // namespace pht
