// What the targets have in common: an invariant, and an input taken piece by piece.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "kernel/types.h"

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                            \
        }                                                                       \
    } while (false)

namespace fuzz {

// Set by a target whose code holds the engine's lock, and so may use the pool.
extern bool may_use_pool;

// While one is there an input is tried: memory comes from one place, and at its end all of it was
// given back. Made before anything else of the input's.
class Execution {
public:
    Execution();
    ~Execution();
    Execution(const Execution &) = delete;
    Execution &operator=(const Execution &) = delete;
};

// Zeros; `size` as it was taken. AddressSanitizer sees who reads beyond, or afterwards.
void *take(size_t size);
void give(void *block, size_t size);

// Takes an input off its front; what is not there is zero.
class Input {
public:
    Input(const uint8_t *data, size_t size) : at_(data), left_(size) {}

    template <class T = uint8_t> T number() {
        T value = {};
        // Of a size that is known it is an instruction.
        if (left_ >= sizeof value)
            memcpy(&value, at_, sizeof value);
        else
            memcpy(&value, at_, left_);
        skip(std::min(sizeof value, left_));
        return value;
    }
    std::string_view bytes(size_t size) {
        size = std::min(size, left_);
        const std::string_view taken(reinterpret_cast<const char *>(at_), size);
        skip(size);
        return taken;
    }
    std::string_view rest() { return bytes(left_); }
    size_t left() const { return left_; }

private:
    void skip(size_t size) {
        at_ += size;
        left_ -= size;
    }
    const uint8_t *at_;
    size_t left_;
};

// A copy on the heap, of that size to the byte.
class Exact {
public:
    Exact(const void *data, size_t size) : size_(size), data_(static_cast<char *>(take(size))) {
        if (size) memcpy(data_, data, size);
    }
    // Zeros.
    explicit Exact(size_t size) : size_(size), data_(static_cast<char *>(take(size))) {}
    explicit Exact(std::string_view text) : Exact(text.data(), text.size()) {}
    ~Exact() { give(data_, size_); }
    Exact(const Exact &) = delete;
    Exact &operator=(const Exact &) = delete;
    char *data() { return data_; }
    uint8_t *bytes() { return reinterpret_cast<uint8_t *>(data_); }
    size_t size() const { return size_; }

private:
    size_t size_;
    char *data_;
};

}  // namespace fuzz
