#include "kernel/filters.h"

#include "kernel/descriptor.h"
#include "kernel/strings.h"

namespace pht {

namespace {

// The number behind a field's name; false where the line is another one.
bool read_field(Str line, const char *name, u64 *value) {
    if (!starts_with(line, str(name))) return false;
    Cursor cursor{line.data + length(name), line.data + line.size};
    if (cursor.at < cursor.end && *cursor.at == '\t') ++cursor.at;
    *value = cursor.number(10);
    return cursor.ok;
}

}  // namespace

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
    Buffer<40> line;
    u64 mode = 0, count = 0;
    bool known = false;
    for (;;) {
        const auto got = sys::uninterrupted([&] { return sys::read(fd, window, sizeof window); });
        if (!got.ok() || got.value() == 0) break;
        for (size_t i = 0; i < got.value(); ++i) {
            if (window[i] != '\n') {
                line.add({window + i, 1});
                continue;
            }
            const Str text = {line.data, line.size};
            known = read_field(text, "Seccomp:", &mode) || known;
            read_field(text, "Seccomp_filters:", &count);
            line.size = 0;
        }
    }
    // A kernel without seccomp has no such line.
    return known ? mode << 32 | count : 0;
}

}  // namespace pht
