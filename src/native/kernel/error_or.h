// What a call came to: a value or the errno of why there is none, as LLVM libc's ErrorOr, in the
// one word that the kernel answers with. The casts between the word and what it means are here, and
// nowhere else. Where nobody can make anything of a failure, `(void)` says that it is ignored.
#pragma once

#include "kernel/types.h"

namespace pht {

template <class T> struct ErrorOr;

// Why there is no value. Becomes an ErrorOr of whatever kind.
struct Error {
    u16 number;  // errno; 0 of what went well

    template <class T> constexpr operator ErrorOr<T>() const { return {-long{number}}; }
};

// T is int for a descriptor, size_t for a number of bytes, u64 for an address; void where there is
// nothing but success.
template <class T> struct [[nodiscard]] ErrorOr {
    long word = 0;  // a value, or -errno

    constexpr bool ok() const {
        return static_cast<unsigned long>(word) < static_cast<unsigned long>(-4095L);
    }
    constexpr T value() const { return static_cast<T>(word); }  // where it is ok()
    // The errno, or 0 where it is ok().
    constexpr u16 error() const { return ok() ? u16{0} : static_cast<u16>(-word); }
    constexpr operator Error() const { return {error()}; }
    // The same, with an error in the place of 0: of reading or writing that does not come on.
    constexpr ErrorOr nonzero(int error) const { return word ? *this : ErrorOr{-error}; }
};

template <class T> constexpr ErrorOr<T> success(T value) {
    return {static_cast<long>(value)};
}

}  // namespace pht
