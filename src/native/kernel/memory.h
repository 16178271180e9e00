// Own memory: an allocator on mmap and a growable array on top of it.
#pragma once

#include "kernel/sys.h"

namespace pht {

void *allocate(size_t size);             // zero-filled, 16-byte aligned; nullptr when there is none
void release(void *block, size_t size);  // `size` as given to allocate
void *map_memory(size_t size);           // the same, as a mapping of its own
void unmap_memory(void *block, size_t size);

// Memory for a scope: on the stack where little is needed, as nearly always, else a mapping of its
// own. An import may run on a thread with a stack of 16 KiB.
template <size_t N> class Room : NonCopyable {
public:
    Room() = default;
    ~Room() { drop(); }
    // In place of what was taken before. Not zero-filled; nullptr when there is no memory.
    char *take(size_t size) {
        drop();
        if (size <= N) return here_;
        size_ = size;
        return mapped_ = static_cast<char *>(map_memory(size));
    }

private:
    void drop() {
        if (mapped_) unmap_memory(mapped_, size_);
        mapped_ = nullptr;
    }
    size_t size_ = 0;
    char *mapped_ = nullptr;
    alignas(16) char here_[max<size_t>(N, 1)];
};

int compare(const void *a, const void *b, size_t size);
void copy(void *to, const void *from, size_t size);
void clear(void *block, size_t size);

// Where an array's memory comes from: the pool, which belongs to whoever holds the engine's lock,
// or mappings of its own, for what runs beside others without that lock.
struct Pooled {
    static void *take(size_t size) { return allocate(size); }
    static void give(void *block, size_t size) { release(block, size); }
    static size_t whole(size_t size) { return size; }  // as much as costs the same
};
struct Mapped {
    static void *take(size_t size) { return map_memory(size); }
    static void give(void *block, size_t size) { unmap_memory(block, size); }
    static size_t whole(size_t size) { return round_up(size, kPageSize); }
};

// A growable array of trivially copyable things. push() returns false when memory ran out, and
// then leaves the array as it was.
template <class T, class Memory = Pooled> class Array {
public:
    Array() = default;
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    Array(Array &&other) noexcept { swap(other); }
    Array &operator=(Array &&other) noexcept {
        swap(other);
        return *this;
    }
    ~Array() { reset(); }

    [[nodiscard]] bool push(const T &value) {
        if (size_ == capacity_ && !reserve(capacity_ ? capacity_ * 2 : 8)) return false;
        data_[size_++] = value;
        return true;
    }
    [[nodiscard]] bool append(const T *values, size_t count) {
        if (size_ + count > capacity_ && !reserve(max(size_ + count, capacity_ * 2))) return false;
        copy(data_ + size_, values, count * sizeof(T));
        size_ += count;
        return true;
    }
    [[nodiscard]] bool resize(size_t count) {  // new elements are zero
        if (count > capacity_ && !reserve(count)) return false;
        if constexpr (sizeof(T) == 1)
            pht::clear(data_ + size_, count > size_ ? count - size_ : 0);
        else
            for (size_t i = size_; i < count; ++i) data_[i] = T{};
        size_ = count;
        return true;
    }
    void clear() { size_ = 0; }
    void reset() {
        if (data_) Memory::give(data_, capacity_ * sizeof(T));
        data_ = nullptr;
        size_ = capacity_ = 0;
    }
    void swap(Array &other) {
        T *data = data_;
        const size_t size = size_, capacity = capacity_;
        data_ = other.data_, size_ = other.size_, capacity_ = other.capacity_;
        other.data_ = data, other.size_ = size, other.capacity_ = capacity;
    }
    T &operator[](size_t i) { return data_[i]; }
    const T &operator[](size_t i) const { return data_[i]; }
    T *data() { return data_; }
    const T *data() const { return data_; }
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    T *begin() { return data_; }
    T *end() { return data_ + size_; }
    const T *begin() const { return data_; }
    const T *end() const { return data_ + size_; }

private:
    bool reserve(size_t capacity) {
        capacity = Memory::whole(capacity * sizeof(T)) / sizeof(T);
        void *block = Memory::take(capacity * sizeof(T));
        if (!block) return false;
        if (data_) {
            copy(block, data_, size_ * sizeof(T));
            Memory::give(data_, capacity_ * sizeof(T));
        }
        data_ = static_cast<T *>(block);
        capacity_ = capacity;
        return true;
    }
    T *data_ = nullptr;
    size_t size_ = 0, capacity_ = 0;
};

// For what runs without the engine's lock.
template <class T> using MappedArray = Array<T, Mapped>;

}  // namespace pht
