#include "kernel/strings.h"

namespace pht {

u32 take_character(const char **at, const char *end) {
    const auto first = static_cast<unsigned char>(*(*at)++);
    if (first < 0x80) return first;
    const u32 escaped = 0xdc00u + first;
    int more = 0;
    u32 value = 0, smallest = 0;
    if ((first & 0xe0) == 0xc0)
        more = 1, value = first & 0x1fu, smallest = 0x80;
    else if ((first & 0xf0) == 0xe0)
        more = 2, value = first & 0x0fu, smallest = 0x800;
    else if ((first & 0xf8) == 0xf0)
        more = 3, value = first & 0x07u, smallest = 0x10000;
    else
        return escaped;
    if (end - *at < more) return escaped;
    for (int i = 0; i < more; ++i) {
        const auto byte = static_cast<unsigned char>((*at)[i]);
        if ((byte & 0xc0) != 0x80) return escaped;
        value = (value << 6) | (byte & 0x3fu);
    }
    if (value < smallest || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return escaped;
    *at += more;
    return value;
}

namespace {

// One `[...]` at `at` (just behind the bracket) against a character. Sets `after` behind the
// closing bracket, or to nullptr where there is none: then the bracket is an ordinary character.
bool match_set(const char *at, const char *end, u32 wanted, const char **after) {
    const char *close = at;
    if (close < end && *close == '!') ++close;
    if (close < end && *close == ']') ++close;
    while (close < end && *close != ']') ++close;
    if (close >= end) {
        *after = nullptr;
        return false;
    }
    *after = close + 1;
    const bool negated = *at == '!';
    if (negated) ++at;
    bool found = false;
    while (at < close) {
        const u32 low = take_character(&at, close);
        u32 high = low;
        if (close - at >= 2 && *at == '-') {
            ++at;
            high = take_character(&at, close);
        }
        found = found || (low <= wanted && wanted <= high);
    }
    return found != negated;
}

}  // namespace

bool glob_match(Str pattern, Str text) {
    const char *p = pattern.data, *p_end = p + pattern.size;
    const char *t = text.data, *t_end = t + text.size;
    // Where to go on from when the text behind the last star did not match: one character later.
    const char *star = nullptr, *retry = nullptr;
    for (;;) {
        if (p < p_end && *p == '*') {
            star = ++p;
            retry = t;
            continue;
        }
        if (p == p_end && t == t_end) return true;
        bool matched = false;
        if (p < p_end && t < t_end) {
            const char *after_p = p, *after_t = t;
            const u32 wanted = take_character(&after_t, t_end);
            const u32 asked = take_character(&after_p, p_end);
            const char *after_set = nullptr;
            if (asked == '[') matched = match_set(after_p, p_end, wanted, &after_set);
            if (after_set)
                after_p = after_set;
            else
                matched = asked == '?' || asked == wanted;
            if (matched) {
                p = after_p;
                t = after_t;
            }
        }
        if (!matched) {
            if (!star || retry >= t_end) return false;
            p = star;
            take_character(&retry, t_end);
            t = retry;
        }
    }
}

}  // namespace pht
