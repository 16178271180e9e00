#include "store/trust.h"

#include "kernel/descriptor.h"
#include "kernel/strings.h"

namespace pht {

namespace {

constexpr u32 kOthersWrite = S_IWGRP | S_IWOTH;

constexpr Outcome untrusted = {Status::untrusted, Call::none, 0};

// The user whom the kernel shows for whoever has no name in a user namespace, and NFS servers for
// whoever they do not know: what is nobody's may be anybody's.
constexpr u32 kNobody = 65534;

// The user this process is. One that is several (set-user-ID, seteuid(2)) is nobody: what the
// lesser of its users can write, the greater must not run.
u32 user() {
    u32 real = 0, effective = 0, saved = 0;
    if (!sys::users(&real, &effective, &saved).ok()) return kNobody;
    return real == effective && real == saved ? effective : kNobody;
}

bool owned_by_us(const sys::FileIdentity &file) {
    return file.owner == 0 || (file.owner == user() && file.owner != kNobody);
}

// What a missing directory comes to: it can be made where its parent may be written.
Outcome missing_directory(int parent, const char *path, u16 error) {
    if (error != ENOENT) return {Status::no_store, Call::open, error};
    const auto refusal = sys::may_write(parent, path);
    if (!refusal.ok()) return {Status::no_store, Call::access, refusal.error()};
    return {Status::no_store, Call::none, 0, user() != kNobody};
}

// Every step of an absolute path, symbolic links too: they are followed, so whoever may change
// one may lead us elsewhere. Where there are any, the way they lead has to be checked as well.
Outcome check_way(const char *path, bool above, bool *links) {
    const size_t size = length(path);
    *links = false;
    if (size >= kPathLimit || path[0] != '/') return untrusted;
    Room<kUsualPath> room;
    char *const prefix = room.take(size + 1);
    if (!prefix) return {Status::no_memory, Call::none, 0};
    size_t parent = 1;  // the size of the last prefix that is there
    for (size_t i = 0; i <= size; ++i) {
        if (i > 0 && i < size && path[i] != '/') {
            prefix[i] = path[i];
            continue;
        }
        if (i < size) prefix[i] = '/';
        prefix[i == 0 ? 1 : i] = 0;
        sys::FileIdentity file;
        const auto result = sys::identify_path(prefix, &file);
        if (!result.ok()) {
            prefix[parent] = 0;
            return missing_directory(AT_FDCWD, prefix, result.error());
        }
        const u32 type = file.mode & S_IFMT;
        if (type == S_IFLNK) {
            if (!owned_by_us(file)) return untrusted;
            *links = true;
        } else if (type != S_IFDIR) {
            return {Status::no_store, Call::open, ENOTDIR};
        } else if (!trusted_directory(file, above || i < size)) {
            return untrusted;
        }
        parent = i == 0 ? 1 : i;
        if (i < size) prefix[i] = '/';
    }
    return done();
}

// The way to an open directory without any symbolic link.
Outcome check_real_way(int directory, bool above) {
    Buffer<40> link;
    link.add("/proc/self/fd/").add_decimal(static_cast<u64>(directory));
    Room<0> room;
    char *const real = room.take(kPathLimit);
    if (!real) return {Status::no_memory, Call::none, 0};
    const auto size = sys::read_link(link.data, real, kPathLimit);
    if (!size.ok() || size.value() >= kPathLimit) return untrusted;
    real[size.value()] = 0;
    bool links;
    const Outcome outcome = check_way(real, above, &links);
    return links ? untrusted : outcome;
}

}  // namespace

bool trusted_directory(const sys::FileIdentity &file, bool above) {
    if ((file.mode & S_IFMT) != S_IFDIR || !owned_by_us(file)) return false;
    if (!(file.mode & kOthersWrite)) return true;
    return above && (file.mode & S_ISVTX) && file.owner == 0;
}

bool is_somebody() {
    return user() != kNobody;
}

bool is_for_user(int directory) {
    sys::FileIdentity file;
    if (!sys::identify(directory, &file).ok()) return false;
    return file.owner == user() || (file.mode & S_ISVTX);
}

int open_root(const char *root, Outcome *outcome, bool above) {
    bool links;
    *outcome = check_way(root, above, &links);
    if (!outcome->ok()) return -1;
    const auto fd = sys::open_at(AT_FDCWD, root, O_PATH | O_DIRECTORY);
    if (!fd.ok()) {
        *outcome = {Status::no_store, Call::open, fd.error()};
        return -1;
    }
    if (links) *outcome = check_real_way(fd.value(), above);
    if (outcome->ok()) return fd.value();
    sys::close(fd.value());
    return -1;
}

int open_directory(int parent, const char *name, Outcome *outcome) {
    const auto fd = sys::open_at(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!fd.ok()) {
        *outcome = missing_directory(parent, ".", fd.error());
        // A link, or no directory at all: nothing of ours.
        if (fd.error() == ENOTDIR || fd.error() == ELOOP) *outcome = untrusted;
        return -1;
    }
    sys::FileIdentity file;
    const auto result = sys::identify(fd.value(), &file);
    if (result.ok() && trusted_directory(file, false)) return fd.value();
    *outcome = result.ok() ? untrusted : refused(Call::statx, result);
    sys::close(fd.value());
    return -1;
}

// Other names of it (hard links) are no danger, owner and mode being the file's own; and perf
// record links what it saw into ~/.debug.
int open_file(int parent, const char *name, sys::FileIdentity *file, Outcome *outcome,
              bool quietly) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    ErrorOr<int> fd = Error{EPERM};
    if (quietly) fd = sys::open_at(parent, name, kFlags | O_NOATIME);
    // Of another user's file nobody but root may keep the access time.
    if (fd.error() == EPERM) fd = sys::open_at(parent, name, kFlags);
    if (!fd.ok()) {
        *outcome = refused(Call::open, fd);
        if (fd.error() == ENOENT || fd.error() == ENOTDIR) *outcome = bad_entry(Status::no_entry);
        // A link, a socket, a device, a file that its owner may not read: nothing that we wrote.
        if (fd.error() == ELOOP || fd.error() == ENXIO || fd.error() == ENODEV ||
            fd.error() == EACCES || fd.error() == EPERM)
            *outcome = bad_entry(Status::untrusted);
        return -1;
    }
    const auto result = sys::identify(fd.value(), file);
    if (result.ok() && (file->mode & S_IFMT) == S_IFREG && owned_by_us(*file) &&
        !(file->mode & kOthersWrite))
        return fd.value();
    *outcome = result.ok() ? bad_entry(Status::untrusted) : refused(Call::statx, result);
    sys::close(fd.value());
    return -1;
}

}  // namespace pht
