#include "kernel/filters.h"

#include "kernel/lines.h"

namespace pht {

u64 find_filters() {
    const auto mode = sys::seccomp_mode();
    return mode.ok() && mode.value() == 0 ? 0 : read_filters();
}

u64 read_filters() {
    // Of this thread: a filter need not be on the others.
    const Descriptor fd(sys::open("/proc/thread-self/status"));
    if (!fd.ok()) return kUnknownFilters;
    // Lines may be long (Groups); of each only the begin matters.
    char window[512] = {};
    u64 mode = 0, count = 0;
    bool known = false;
    const auto read = each_line(fd, window, sizeof window, [&](Str line) {
        known = read_field(line, "Seccomp:", &mode) || known;
        read_field(line, "Seccomp_filters:", &count);
        return true;
    });
    if (!read.ok()) return kUnknownFilters;
    // A kernel without seccomp has no such line.
    return known ? mode << 32 | count : 0;
}

}  // namespace pht
