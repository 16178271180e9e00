#include "text.h"

namespace pht {

namespace {

// One `[...]` at `at` (just behind the bracket) against `c`. Sets `after` behind the closing
// bracket, or to nullptr where there is none: then the bracket is an ordinary character.
bool match_set(const char *at, const char *end, char c, const char **after) {
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
    const auto wanted = static_cast<unsigned char>(c);
    bool found = false;
    while (at < close) {
        const auto low = static_cast<unsigned char>(*at);
        if (at + 2 < close && at[1] == '-') {
            const auto high = static_cast<unsigned char>(at[2]);
            found = found || (low <= wanted && wanted <= high);
            at += 3;
        } else {
            found = found || low == wanted;
            ++at;
        }
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
            const char *after = nullptr;
            if (*p == '?') {
                matched = true;
                after = p + 1;
            } else if (*p == '[') {
                matched = match_set(p + 1, p_end, *t, &after);
                if (!after) {
                    matched = *t == '[';
                    after = p + 1;
                }
            } else {
                matched = *p == *t;
                after = p + 1;
            }
            if (matched) {
                p = after;
                ++t;
            }
        }
        if (!matched) {
            if (!star || retry >= t_end) return false;
            p = star;
            t = ++retry;
        }
    }
}

}  // namespace pht
