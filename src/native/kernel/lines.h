// Reading files of /proc and /sys line by line, however long they are.
#pragma once

#include "kernel/descriptor.h"
#include "kernel/strings.h"

namespace pht {

// Calls visit(Str) for each line of an open file until it returns false. What is longer than the
// window comes cut.
template <class Visit> ErrorOr<void> each_line(int fd, char *window, size_t room, Visit visit) {
    size_t held = 0;
    bool cut = false;
    for (;;) {
        const auto got =
            sys::uninterrupted([&] { return sys::read(fd, window + held, room - held); });
        if (!got.ok()) return Error(got);
        if (got.value() == 0) return {};
        held += got.value();
        size_t from = 0;
        for (size_t at = 0; at < held; ++at) {
            if (window[at] != '\n') continue;
            if (!cut && !visit(Str{window + from, at - from})) return {};
            cut = false;
            from = at + 1;
        }
        if (from == 0 && held == room) {
            if (!cut && !visit(Str{window, held})) return {};
            cut = true;
            from = held;
        }
        for (size_t at = from; at < held; ++at) window[at - from] = window[at];
        held -= from;
    }
}

// The same for a file by its name, with lines up to a path of 4,096 bytes, all of them newlines,
// which the kernel prints as four characters each.
template <class Visit> ErrorOr<void> each_line(const char *file, Visit visit) {
    constexpr size_t kWindow = 20ul * 1024;
    const Descriptor fd(sys::open(file));
    Room<0> room;
    char *const window = room.take(kWindow);
    if (!window) return Error{ENOMEM};
    if (!fd.ok()) return Error(fd);
    return each_line(fd, window, kWindow, visit);
}

// The number behind a field's name; false where the line is another one.
inline bool read_field(Str line, const char *name, u64 *value) {
    if (!starts_with(line, str(name))) return false;
    Cursor cursor{line.data + length(name), line.data + line.size};
    cursor.blanks();
    *value = cursor.number(10);
    return cursor.ok;
}

}  // namespace pht
