// In place of the core's memory.cpp, and of operator new while an input is tried: blocks whose ends
// AddressSanitizer knows, of which none is used twice for one input and none is left after it. What
// malloc(3) does beside that is most of the time of a short input.
#include "kernel/memory.h"

#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <new>

#include "check.h"

extern "C" void __sanitizer_weak_hook_memcmp(void *caller, const void *a, const void *b,
                                             size_t size, int result);

namespace fuzz {

bool may_use_pool = false;

namespace {

constexpr size_t kArena = 64 << 20, kLargest = 8 << 20;  // what is larger comes from malloc(3)
constexpr size_t kAlignment = 16;
constexpr uint8_t kNobodys = 0xfa, kGivenBack = 0xfd;  // as AddressSanitizer's reports name them
constexpr uint64_t kLive = 0x6c69766562c30c6b, kGone = 0x676f6e6562c30c6b;

// In front of each block.
struct Head {
    uint64_t state, size;
};

char *arena, *at;
uint8_t *shadow;
size_t left, held;  // blocks that were not given back, and of the core's
bool running;

// Of few a loop is faster, which must not become a memset(3): the sanitizers have their own of
// that, which knows what is forbidden.
constexpr size_t kFew = 1024;
__attribute__((no_builtin("memset"))) void shade(const char *from, size_t size, uint8_t what) {
    uint8_t *const first = shadow + (from - arena) / 8;
    if (size <= kFew)
        for (size_t i = 0; i < size / 8; ++i) first[i] = what;
    else if (what)
        __asan_poison_memory_region(from, size);
    else
        __asan_unpoison_memory_region(from, size);
}

// Bytes of nobody on both sides: the more, the larger a step beside it may be.
size_t margin(size_t size) {
    return std::clamp(size / 8 / kAlignment * kAlignment, size_t{32}, size_t{1024});
}

void prepare() {
    void *const got = mmap(nullptr, kArena, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(got != MAP_FAILED);
    arena = static_cast<char *>(got);
    size_t scale, offset;
    __asan_get_shadow_mapping(&scale, &offset);
    CHECK(scale == 3);
    shadow = reinterpret_cast<uint8_t *>((reinterpret_cast<uint64_t>(arena) >> 3) + offset);
    shade(arena, kArena, kNobodys);
    at = arena;
}

bool is_ours(const void *block) {
    return arena && reinterpret_cast<uint64_t>(block) - reinterpret_cast<uint64_t>(arena) < kArena;
}

Head *head_of(void *block) {
    return static_cast<Head *>(block) - 1;
}

char *take_block(size_t size) {
    const size_t room = margin(size);
    if (!running || size > kLargest || size + 3 * room > static_cast<size_t>(arena + kArena - at))
        return nullptr;
    char *const block = at + room;
    *head_of(block) = {kLive, size};
    shade(block, size, 0);
    if (size % 8) shadow[(block - arena) / 8 + size / 8] = size % 8;
    at = block + (size + kAlignment - 1) / kAlignment * kAlignment + room;
    ++left;
    return block;
}

void give_block(void *block) {
    Head *const head = head_of(block);
    CHECK(head->state == kLive);
    head->state = kGone;
    shade(static_cast<char *>(block), (head->size + 7) / 8 * 8, kGivenBack);
    --left;
}

size_t size_of(void *block) {
    return head_of(block)->size;
}

}  // namespace

void *take(size_t size) {
    ++held;
    char *const block = take_block(size);
    if (!block) return calloc(1, size);
    memset(block, 0, size);
    return block;
}

void give(void *block, size_t size) {
    --held;
    if (!is_ours(block)) return free(block);
    CHECK(size_of(block) == size);
    give_block(block);
}

Execution::Execution() {
    if (!arena) prepare();
    CHECK(!running);
    running = true;
}

Execution::~Execution() {
    running = false;
    CHECK(left == 0 && held == 0);
    at = arena;
}

namespace {

void *make(size_t size) {
    void *block = take_block(size);
    if (!block) block = malloc(size);
    if (!block) abort();
    return block;
}

void unmake(void *block) {
    if (is_ours(block))
        give_block(block);
    else
        free(block);
}

}  // namespace

}  // namespace fuzz

// libFuzzer's own are made and unmade between the inputs.
void *operator new(size_t size) {
    return fuzz::make(size);
}
void *operator new[](size_t size) {
    return fuzz::make(size);
}
void *operator new(size_t size, const std::nothrow_t &) noexcept {
    return fuzz::make(size);
}
void *operator new[](size_t size, const std::nothrow_t &) noexcept {
    return fuzz::make(size);
}
void operator delete(void *block) noexcept {
    fuzz::unmake(block);
}
void operator delete[](void *block) noexcept {
    fuzz::unmake(block);
}
void operator delete(void *block, size_t) noexcept {
    fuzz::unmake(block);
}
void operator delete[](void *block, size_t) noexcept {
    fuzz::unmake(block);
}
void operator delete(void *block, const std::nothrow_t &) noexcept {
    fuzz::unmake(block);
}
void operator delete[](void *block, const std::nothrow_t &) noexcept {
    fuzz::unmake(block);
}

namespace pht {

void *map_memory(size_t size) {
    return fuzz::take(size);
}
void unmap_memory(void *block, size_t size) {
    fuzz::give(block, size);
}
void *allocate(size_t size) {
    CHECK(fuzz::may_use_pool);  // belongs to whoever holds the engine's lock
    return fuzz::take(size);
}
void release(void *block, size_t size) {
    CHECK(fuzz::may_use_pool);
    fuzz::give(block, size);
}
// What differs is told to libFuzzer, as the sanitizers' memcmp(3) does, which takes longer.
int compare(const void *a, const void *b, size_t size) {
    const auto *const left = static_cast<const u8 *>(a), *const right = static_cast<const u8 *>(b);
    size_t same = 0;
    while (same < size && left[same] == right[same]) ++same;
    if (same == size) return 0;
    const int result = left[same] - right[same];
    __sanitizer_weak_hook_memcmp(__builtin_return_address(0), a, b, size, result);
    return result;
}
void copy(void *to, const void *from, size_t size) {
    if (size) memcpy(to, from, size);
}
void clear(void *block, size_t size) {
    if (size) memset(block, 0, size);
}

}  // namespace pht
