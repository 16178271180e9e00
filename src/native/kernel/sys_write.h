// Typed system calls that write to file systems, or wait: the builder's alone. As in kernel/sys.h
// each use is a call site of its own.
#pragma once

#include "kernel/sys.h"

namespace pht::sys {

__attribute__((always_inline)) inline ErrorOr<int> create_at(int directory, const char *name,
                                                             int flags, u32 mode) {
    return {raw(nr::openat, directory, reinterpret_cast<long>(name),
                flags | O_CREAT | O_NOFOLLOW | O_CLOEXEC, static_cast<long>(mode))};
}
__attribute__((always_inline)) inline ErrorOr<void> make_directory_at(int directory,
                                                                      const char *name, u32 mode) {
    return {raw(nr::mkdirat, directory, reinterpret_cast<long>(name), static_cast<long>(mode))};
}
// Follows a symbolic link: for what was just made where nobody else can put anything.
__attribute__((always_inline)) inline ErrorOr<void> change_mode_at(int directory, const char *name,
                                                                   u32 mode) {
    return {raw(nr::fchmodat, directory, reinterpret_cast<long>(name), static_cast<long>(mode))};
}
__attribute__((always_inline)) inline ErrorOr<void> unlink_at(int directory, const char *name) {
    return {raw(nr::unlinkat, directory, reinterpret_cast<long>(name), 0)};
}
__attribute__((always_inline)) inline ErrorOr<void> remove_directory_at(int directory,
                                                                        const char *name) {
    return {raw(nr::unlinkat, directory, reinterpret_cast<long>(name), AT_REMOVEDIR)};
}
// Replaces what has the new name, as rename(2) does.
__attribute__((always_inline)) inline ErrorOr<void> rename_at(int from, const char *name, int to,
                                                              const char *new_name) {
    return {raw(nr::renameat2, from, reinterpret_cast<long>(name), to,
                reinterpret_cast<long>(new_name), 0)};
}
__attribute__((always_inline)) inline ErrorOr<size_t> write(int fd, const void *from, size_t size) {
    return {raw(nr::write, fd, reinterpret_cast<long>(from), static_cast<long>(size))};
}
__attribute__((always_inline)) inline ErrorOr<void> sync(int fd) {
    return {raw(nr::fsync, fd)};
}
__attribute__((always_inline)) inline ErrorOr<void> sync_data(int fd) {
    return {raw(nr::fdatasync, fd)};
}
// Entries of a directory, as struct linux_dirent64; see getdents(2).
__attribute__((always_inline)) inline ErrorOr<size_t> read_directory(int fd, void *to,
                                                                     size_t size) {
    return {raw(nr::getdents64, fd, reinterpret_cast<long>(to), static_cast<long>(size))};
}
__attribute__((always_inline)) inline ErrorOr<u64> seek(int fd, u64 offset, int whence) {
    return {raw(nr::lseek, fd, static_cast<long>(offset), whence)};
}
// Sets access and modification time of an open file, in seconds since the epoch.
__attribute__((always_inline)) inline ErrorOr<void> set_times(int fd, u64 seconds) {
    const u64 times[4] = {seconds, 0, seconds, 0};
    return {raw(nr::utimensat, fd, 0, reinterpret_cast<long>(times), 0)};
}

// A lock on a whole file that belongs to its open description (F_OFD_SETLK of fcntl(2)): gone with
// its holder, and not shared by another thread that opens the file. EAGAIN where somebody has it.
inline ErrorOr<void> set_lock(int fd, u16 type) {
    struct Lock {
        u16 type, whence;
        u64 start, length;
        int pid;
    } lock = {type, 0, 0, 0, 0};
    return {raw(nr::fcntl, fd, F_OFD_SETLK, reinterpret_cast<long>(&lock))};
}
inline ErrorOr<void> try_lock(int fd) {
    return set_lock(fd, F_WRLCK);
}
// Gives it back, even where a forked child has the descriptor too.
inline void unlock(int fd) {
    (void)set_lock(fd, F_UNLCK);
}

inline u64 process_id() {
    return static_cast<u64>(raw(nr::getpid));
}

}  // namespace pht::sys
