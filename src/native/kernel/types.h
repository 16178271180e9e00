// The few plain types the core is written in. No header here needs a C library at run time.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace pht {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

// Text that somebody else owns; not NUL-terminated.
struct Str {
    const char *data = nullptr;
    size_t size = 0;
};

// Base of what is the only owner of something.
struct NonCopyable {
    NonCopyable() = default;
    NonCopyable(const NonCopyable &) = delete;
    NonCopyable &operator=(const NonCopyable &) = delete;
};

inline constexpr u64 kPageSize = 4096;
inline constexpr u64 kHugeSize = 2ul * 1024 * 1024;

constexpr u64 round_down(u64 value, u64 unit) {
    return value & ~(unit - 1);
}
constexpr u64 round_up(u64 value, u64 unit) {
    return round_down(value + unit - 1, unit);
}
template <class T> constexpr T min(T a, T b) {
    return a < b ? a : b;
}
template <class T> constexpr T max(T a, T b) {
    return a > b ? a : b;
}

}  // namespace pht
