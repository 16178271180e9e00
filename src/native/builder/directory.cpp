#include "builder/directory.h"

#include "kernel/descriptor.h"

namespace pht {

namespace {

// Nothing of a store is deeper than three steps; what somebody put there by hand may be.
constexpr int kDeepest = 16;

ErrorOr<void> identify_name(int parent, const char *name, sys::FileIdentity *file) {
    return sys::identify_at(parent, name, AT_SYMLINK_NOFOLLOW, file);
}

// A directory on the way down.
struct Level {
    int fd = -1, parent = -1;
    const char *name = nullptr;  // below the parent
    Names names;
};

// Takes a file, or a directory with all below it, the deepest first. take(parent, name) tells
// whether it is a directory that is to be entered, as ErrorOr<bool>; leave(parent, name) is called
// for each directory behind what is in it, and gives an ErrorOr<void>. An error ends the walk.
template <class Take, class Leave>
ErrorOr<void> walk(int parent, const char *name, Take take, Leave leave) {
    Level levels[kDeepest];
    int depth = 0;
    ErrorOr<void> result;
    for (;;) {
        const ErrorOr<bool> taken = take(parent, name);
        if (!taken.ok()) {
            result = Error(taken);
            break;
        }
        if (taken.value()) {
            ErrorOr<int> fd = Error{ELOOP};
            if (depth < kDeepest) fd = open_plain_directory(parent, name);
            if (!fd.ok()) {
                result = Error(fd);
                break;
            }
            Level &level = levels[depth++];
            level.fd = fd.value();
            level.parent = parent;
            level.name = name;
            result = level.names.read(level.fd);
            if (!result.ok()) break;
        }
        while (depth > 0 && !levels[depth - 1].names.next(&name)) {
            Level &level = levels[--depth];
            sys::close(level.fd);
            result = leave(level.parent, level.name);
            if (!result.ok()) break;
        }
        if (depth == 0 || !result.ok()) break;
        parent = levels[depth - 1].fd;
    }
    while (depth > 0) sys::close(levels[--depth].fd);
    return result;
}

}  // namespace

bool is_plain(Str name) {
    if (name.size == 0 || equal(name, str(".")) || equal(name, str(".."))) return false;
    for (size_t i = 0; i < name.size; ++i)
        if (name.data[i] == '/') return false;
    return true;
}

ErrorOr<void> Names::read(int directory) {
    // struct linux_dirent64 of getdents(2)
    constexpr size_t kNameAt = 19, kLengthAt = 16;
    text_.clear();
    at_ = 0;
    if (const auto result = sys::seek(directory, 0, SEEK_SET); !result.ok()) return Error(result);
    alignas(u64) char entries[2048];
    for (;;) {
        const auto got = sys::read_directory(directory, entries, sizeof entries);
        if (!got.ok()) return Error(got);
        if (got.value() == 0) return {};
        for (size_t at = 0; at < got.value();) {
            u16 step;
            copy(&step, entries + at + kLengthAt, sizeof step);
            const char *name = entries + at + kNameAt;
            if (is_plain(str(name)) && !text_.append(name, length(name) + 1)) return Error{ENOMEM};
            at += step;
        }
    }
}

ErrorOr<void> make_plain_directory(int parent, const char *name, u32 mode) {
    const auto made = sys::make_directory_at(parent, name, mode);
    return made.ok() ? sys::change_mode_at(parent, name, mode) : made;
}

ErrorOr<int> open_plain_directory(int parent, const char *name) {
    return sys::open_at(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

u64 disk_bytes(int parent, const char *name) {
    u64 bytes = 0;
    (void)walk(
        parent, name,
        [&](int at, const char *target) {
            sys::FileIdentity file;
            if (!identify_name(at, target, &file).ok()) return success(false);
            const bool enters = (file.mode & S_IFMT) == S_IFDIR;
            if (!enters) bytes += file.disk_bytes;
            return success(enters);
        },
        [](int, const char *) { return ErrorOr<void>{}; });
    return bytes;
}

ErrorOr<void> remove_tree(int parent, const char *name) {
    return walk(
        parent, name,
        [](int at, const char *target) -> ErrorOr<bool> {
            const auto result = sys::unlink_at(at, target);
            if (result.ok() || result.error() == ENOENT) return success(false);
            if (result.error() != EISDIR && result.error() != EPERM) return Error(result);
            // Linux answers EISDIR for a directory; POSIX would have EPERM.
            sys::FileIdentity file;
            const bool known = identify_name(at, target, &file).ok();
            if (known && (file.mode & S_IFMT) == S_IFDIR) return success(true);
            return Error(result);
        },
        [](int at, const char *target) {
            const auto result = sys::remove_directory_at(at, target);
            return result.error() == ENOENT ? ErrorOr<void>{} : result;
        });
}

}  // namespace pht
