// In place of the core's memory.cpp: blocks whose ends AddressSanitizer knows.
#include "kernel/memory.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

bool fuzz::may_use_pool = false;

namespace pht {

void *map_memory(size_t size) {
    return calloc(1, size);
}
void unmap_memory(void *block, size_t) {
    free(block);
}
void *allocate(size_t size) {
    CHECK(fuzz::may_use_pool);  // belongs to whoever holds the engine's lock
    return calloc(1, size);
}
void release(void *block, size_t) {
    CHECK(fuzz::may_use_pool);
    free(block);
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
