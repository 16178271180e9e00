#include "builder/directory.h"

#include "kernel/descriptor.h"

namespace pht {

namespace {

using sys::failed;

// Nothing of a store is deeper than three steps; what somebody put there by hand may be.
constexpr int kDeepest = 16;

long identify_name(int parent, const char *name, sys::FileIdentity *file) {
    return sys::identify_at(parent, name, AT_SYMLINK_NOFOLLOW, file);
}

// A directory on the way down.
struct Level {
    int fd = -1, parent = -1;
    const char *name = nullptr;  // below the parent
    Names names;
};

// Takes a file, or a directory with all below it, the deepest first. take(parent, name) returns 0,
// 1 for a directory that is to be entered, or -errno, which ends the walk; leave(parent, name) is
// called for each directory behind what is in it, and returns likewise.
template <class Take, class Leave> long walk(int parent, const char *name, Take take, Leave leave) {
    Level levels[kDeepest];
    int depth = 0;
    long result = 0;
    for (;;) {
        result = take(parent, name);
        if (failed(result)) break;
        if (result == 1) {
            result = depth == kDeepest ? -ELOOP : open_plain_directory(parent, name);
            if (failed(result)) break;
            Level &level = levels[depth++];
            level.fd = static_cast<int>(result);
            level.parent = parent;
            level.name = name;
            result = level.names.read(level.fd);
            if (failed(result)) break;
        }
        while (depth > 0 && !levels[depth - 1].names.next(&name)) {
            Level &level = levels[--depth];
            sys::close(level.fd);
            result = leave(level.parent, level.name);
            if (failed(result)) break;
        }
        if (depth == 0 || failed(result)) break;
        parent = levels[depth - 1].fd;
    }
    while (depth > 0) sys::close(levels[--depth].fd);
    return failed(result) ? result : 0;
}

}  // namespace

bool is_plain(Str name) {
    if (name.size == 0 || equal(name, str(".")) || equal(name, str(".."))) return false;
    for (size_t i = 0; i < name.size; ++i)
        if (name.data[i] == '/') return false;
    return true;
}

long Names::read(int directory) {
    // struct linux_dirent64 of getdents(2)
    constexpr size_t kNameAt = 19, kLengthAt = 16;
    text_.clear();
    at_ = 0;
    if (const long result = sys::seek(directory, 0, SEEK_SET); failed(result)) return result;
    alignas(u64) char entries[2048];
    for (;;) {
        const long got = sys::read_directory(directory, entries, sizeof entries);
        if (failed(got)) return got;
        if (got == 0) return 0;
        for (size_t at = 0; at < static_cast<size_t>(got);) {
            u16 step;
            copy(&step, entries + at + kLengthAt, sizeof step);
            const char *name = entries + at + kNameAt;
            if (is_plain(str(name)) && !text_.append(name, length(name) + 1)) return -ENOMEM;
            at += step;
        }
    }
}

long make_plain_directory(int parent, const char *name, u32 mode) {
    const long made = sys::make_directory_at(parent, name, mode);
    return failed(made) ? made : sys::change_mode_at(parent, name, mode);
}

long open_plain_directory(int parent, const char *name) {
    return sys::open_at(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

u64 disk_bytes(int parent, const char *name) {
    u64 bytes = 0;
    walk(
        parent, name,
        [&](int at, const char *target) -> long {
            sys::FileIdentity file;
            if (failed(identify_name(at, target, &file))) return 0;
            if ((file.mode & S_IFMT) == S_IFDIR) return 1;
            bytes += file.disk_bytes;
            return 0;
        },
        [](int, const char *) -> long { return 0; });
    return bytes;
}

long remove_tree(int parent, const char *name) {
    return walk(
        parent, name,
        [](int at, const char *target) -> long {
            const long result = sys::unlink_at(at, target);
            if (result == -ENOENT) return 0;
            if (result != -EISDIR && result != -EPERM) return result;
            // Linux answers EISDIR for a directory; POSIX would have EPERM.
            sys::FileIdentity file;
            const bool known = !failed(identify_name(at, target, &file));
            return known && (file.mode & S_IFMT) == S_IFDIR ? 1 : result;
        },
        [](int at, const char *target) -> long {
            const long result = sys::remove_directory_at(at, target);
            return result == -ENOENT ? 0 : result;
        });
}

}  // namespace pht
