#include "kernel/memory.h"

// The compiler calls these for copies and comparisons it does not inline. They are hidden, so
// nothing outside the object that holds the core ever binds to them, and the core never binds to
// the C library's, whose text may be the one being moved.
extern "C" {
[[gnu::visibility("hidden")]] void *memcpy(void *to, const void *from, size_t size) {
    auto *out = static_cast<char *>(to);
    const auto *in = static_cast<const char *>(from);
    for (size_t i = 0; i < size; ++i) out[i] = in[i];
    return to;
}
[[gnu::visibility("hidden")]] void *memmove(void *to, const void *from, size_t size) {
    auto *out = static_cast<char *>(to);
    const auto *in = static_cast<const char *>(from);
    if (out <= in) return memcpy(to, from, size);
    for (size_t i = size; i-- > 0;) out[i] = in[i];
    return to;
}
[[gnu::visibility("hidden")]] void *memset(void *to, int value, size_t size) {
    auto *out = static_cast<char *>(to);
    for (size_t i = 0; i < size; ++i) out[i] = static_cast<char>(value);
    return to;
}
[[gnu::visibility("hidden")]] int memcmp(const void *a, const void *b, size_t size) {
    const auto *x = static_cast<const unsigned char *>(a);
    const auto *y = static_cast<const unsigned char *>(b);
    size_t i = 0;
    // Eight bytes at a time: restore() compares whole libraries with it.
    for (; i + 8 <= size; i += 8) {
        unsigned long left, right;
        __builtin_memcpy(&left, x + i, 8);
        __builtin_memcpy(&right, y + i, 8);
        if (left != right) break;
    }
    for (; i < size; ++i)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}
}

namespace pht {

void *map_memory(size_t size) {
    const auto got = sys::mmap(0, round_up(size, kPageSize), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return got.ok() ? reinterpret_cast<void *>(got.value()) : nullptr;
}

void unmap_memory(void *block, size_t size) {
    sys::munmap(reinterpret_cast<u64>(block), round_up(size, kPageSize));
}

namespace {

// Blocks of a power of two come from chunks and go back to a list of their size; larger ones are
// mappings of their own. Chunks are never given back: the tables of a process are small and live
// as long as it does.
constexpr size_t kChunk = 32ul * 1024;
constexpr size_t kSmallest = 32, kLargest = 4096;
constexpr int kClasses = 8;

struct Free {
    Free *next;
};
Free *free_lists[kClasses];
char *chunk_at, *chunk_end;

int size_class(size_t size) {
    int index = 0;
    for (size_t block = kSmallest; block < size; block *= 2) ++index;
    return index;
}

}  // namespace

void *allocate(size_t size) {
    if (size > kLargest) return map_memory(size);
    const int index = size_class(size);
    const size_t block = kSmallest << index;
    if (Free *head = free_lists[index]) {
        free_lists[index] = head->next;
        memset(head, 0, block);
        return head;
    }
    if (static_cast<size_t>(chunk_end - chunk_at) < block) {
        auto *chunk = static_cast<char *>(map_memory(kChunk));
        if (!chunk) return nullptr;
        chunk_at = chunk;
        chunk_end = chunk + kChunk;
    }
    void *result = chunk_at;
    chunk_at += block;
    return result;
}

void release(void *block, size_t size) {
    if (!block) return;
    if (size > kLargest) {
        unmap_memory(block, size);
        return;
    }
    auto *entry = static_cast<Free *>(block);
    const int index = size_class(size);
    entry->next = free_lists[index];
    free_lists[index] = entry;
}

int compare(const void *a, const void *b, size_t size) {
    return memcmp(a, b, size);
}
void copy(void *to, const void *from, size_t size) {
    if (size) memcpy(to, from, size);
}
void clear(void *block, size_t size) {
    if (size) memset(block, 0, size);
}

}  // namespace pht
