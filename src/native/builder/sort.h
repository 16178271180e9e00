// Sorting without recursion and without memory.
#pragma once

#include "kernel/types.h"

namespace pht {

// Heapsort; not stable, so `less` had better tell any two items apart.
template <class T, class Less> void sort(T *items, size_t count, Less less) {
    const auto sink = [&](size_t at, size_t end) {
        for (;;) {
            size_t child = 2 * at + 1;
            if (child >= end) return;
            if (child + 1 < end && less(items[child], items[child + 1])) ++child;
            if (!less(items[at], items[child])) return;
            const T item = items[at];
            items[at] = items[child];
            items[child] = item;
            at = child;
        }
    };
    for (size_t i = count / 2; i-- > 0;) sink(i, count);
    for (size_t end = count; end > 1;) {
        --end;
        const T item = items[0];
        items[0] = items[end];
        items[end] = item;
        sink(0, end);
    }
}

}  // namespace pht
