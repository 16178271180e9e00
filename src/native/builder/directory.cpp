#include "directory.h"

#include "descriptor.h"

namespace pht {

namespace {

using sys::failed;

// Nothing of a store is deeper than three steps; what somebody put there by hand may be.
constexpr int kDeepest = 16;

constexpr u32 kTypeMask = 0170000, kDirectoryType = 0040000;

long identify_name(int parent, const char *name, sys::FileIdentity *file) {
    constexpr int kNoFollow = 0x100;
    return sys::identify_at(parent, name, kNoFollow, file);
}

u64 disk_bytes(int parent, const char *name, int depth) {
    sys::FileIdentity file;
    if (failed(identify_name(parent, name, &file))) return 0;
    if ((file.mode & kTypeMask) != kDirectoryType || depth == 0) return file.disk_bytes;
    const Descriptor directory(open_plain_directory(parent, name));
    Names names;
    if (directory < 0 || names.read(directory)) return 0;
    u64 bytes = 0;
    for (const char *below; names.next(&below);) bytes += disk_bytes(directory, below, depth - 1);
    return bytes;
}

long remove_tree(int parent, const char *name, int depth) {
    long result = sys::unlink_at(parent, name);
    if (result == 0 || result == -sys::kEnoent) return 0;
    // Linux answers EISDIR for a directory; POSIX would have EPERM.
    if (result != -sys::kEisdir && result != -sys::kEperm) return result;
    const Descriptor directory(open_plain_directory(parent, name));
    if (directory < 0) return directory == -sys::kEnotdir ? result : directory;
    if (depth == 0) return -sys::kEloop;
    Names names;
    if (const long error = names.read(directory)) return error;
    for (const char *below; names.next(&below);)
        if (const long error = remove_tree(directory, below, depth - 1)) return error;
    result = sys::remove_directory_at(parent, name);
    return result == -sys::kEnoent ? 0 : result;
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
    if (const long result = sys::seek(directory, 0, sys::kSeekSet); failed(result)) return result;
    alignas(u64) char entries[2048];
    for (;;) {
        const long got = sys::read_directory(directory, entries, sizeof entries);
        if (failed(got)) return got;
        if (got == 0) return 0;
        for (size_t at = 0; at < static_cast<size_t>(got);) {
            u16 step;
            copy(&step, entries + at + kLengthAt, sizeof step);
            const char *name = entries + at + kNameAt;
            if (is_plain(str(name)) && !text_.append(name, length(name) + 1)) return -sys::kEnomem;
            at += step;
        }
    }
}

long make_plain_directory(int parent, const char *name, u32 mode) {
    const long made = sys::make_directory_at(parent, name, mode);
    return failed(made) ? made : sys::change_mode_at(parent, name, mode);
}

long open_plain_directory(int parent, const char *name) {
    return sys::open_at(parent, name,
                        sys::kOpenReadOnly | sys::kOpenDirectory | sys::kOpenNoFollow);
}

u64 disk_bytes(int parent, const char *name) {
    return disk_bytes(parent, name, kDeepest);
}

long remove_tree(int parent, const char *name) {
    return remove_tree(parent, name, kDeepest);
}

}  // namespace pht
