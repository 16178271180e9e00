// What the targets have in common: an invariant, and an input taken piece by piece.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string>

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

// Takes an input off its front; what is not there is zero.
class Input {
public:
    Input(const uint8_t *data, size_t size) : at_(data), left_(size) {}

    template <class T = uint8_t> T number() {
        T value = {};
        const size_t size = std::min(sizeof value, left_);
        memcpy(&value, at_, size);
        skip(size);
        return value;
    }
    std::string bytes(size_t size) {
        size = std::min(size, left_);
        std::string taken(reinterpret_cast<const char *>(at_), size);
        skip(size);
        return taken;
    }
    std::string rest() { return bytes(left_); }
    size_t left() const { return left_; }

private:
    void skip(size_t size) {
        at_ += size;
        left_ -= size;
    }
    const uint8_t *at_;
    size_t left_;
};

// A copy on the heap, of that size to the byte: AddressSanitizer sees who reads beyond.
class Exact {
public:
    Exact(const void *data, size_t size) : size_(size), data_(static_cast<char *>(malloc(size))) {
        if (size) memcpy(data_, data, size);
    }
    explicit Exact(const std::string &text) : Exact(text.data(), text.size()) {}
    ~Exact() { free(data_); }
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
