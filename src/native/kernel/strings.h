// Number and text handling, enough to read /proc and to write short names.
#pragma once

#include "kernel/memory.h"

namespace pht {

inline size_t length(const char *text) {
    size_t n = 0;
    while (text[n]) ++n;
    return n;
}
inline Str str(const char *text) {
    return {text, length(text)};
}
inline bool equal(Str a, Str b) {
    return a.size == b.size && compare(a.data, b.data, a.size) == 0;
}
inline bool starts_with(Str text, Str prefix) {
    return text.size >= prefix.size && compare(text.data, prefix.data, prefix.size) == 0;
}
inline bool ends_with(Str text, Str suffix) {
    return text.size >= suffix.size &&
           compare(text.data + text.size - suffix.size, suffix.data, suffix.size) == 0;
}
inline Str basename(Str path) {
    size_t at = path.size;
    while (at > 0 && path.data[at - 1] != '/') --at;
    return {path.data + at, path.size - at};
}

// Takes fields off the front of a line. Every call leaves the cursor behind what it read; `ok`
// turns false at the first thing that does not fit and stays so.
struct Cursor {
    const char *at, *end;
    bool ok = true;

    u64 number(unsigned base) {
        u64 value = 0;
        const char *start = at;
        for (; at < end; ++at) {
            const char c = *at;
            unsigned digit;
            if (c >= '0' && c <= '9')
                digit = static_cast<unsigned>(c - '0');
            else if (c >= 'a' && c <= 'f')
                digit = static_cast<unsigned>(c - 'a') + 10;
            else
                break;
            if (digit >= base) break;
            value = value * base + digit;
        }
        if (at == start) ok = false;
        return value;
    }
    void expect(char c) {
        if (at < end && *at == c)
            ++at;
        else
            ok = false;
    }
    char take() {
        if (at < end) return *at++;
        ok = false;
        return 0;
    }
    void blanks() {
        while (at < end && (*at == ' ' || *at == '\t')) ++at;
    }
};

// A text of bounded size built piece by piece; always NUL-terminated, cut where it is too long.
template <size_t N> struct Buffer {
    char data[N] = {};
    size_t size = 0;

    Buffer &add(Str text) {
        const size_t n = min(text.size, N - 1 - size);
        copy(data + size, text.data, n);
        size += n;
        data[size] = 0;
        return *this;
    }
    Buffer &add(const char *text) { return add(str(text)); }
    Buffer &add_hex(u64 value) { return add_number(value, 16); }
    Buffer &add_decimal(u64 value) { return add_number(value, 10); }

private:
    Buffer &add_number(u64 value, unsigned base) {
        char digits[20];
        size_t at = sizeof digits;
        do {
            digits[--at] = "0123456789abcdef"[value % base];
            value /= base;
        } while (value);
        return add({digits + at, sizeof digits - at});
    }
};

// Takes one character off UTF-8 text. A byte that is no part of one is a character of its own, with
// the number Python's surrogateescape gives it.
u32 take_character(const char **at, const char *end);

// Shell pattern match as Python's fnmatch.fnmatchcase does it: * ? [seq] [!seq]; `*` and `?` match
// a slash too. The whole text must match.
bool glob_match(Str pattern, Str text);

}  // namespace pht
