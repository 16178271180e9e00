// Typed system calls that write to file systems, or wait: the builder's, and the preload library's
// for its report. As in kernel/sys.h each use is a call site of its own.
#pragma once

#include "kernel/sys.h"

namespace pht::sys {

PHT_INLINE ErrorOr<int> create_at(int directory, const char *name, int flags, u32 mode) {
    return {call(__NR_openat, directory, name, flags | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode)};
}
PHT_INLINE ErrorOr<void> make_directory_at(int directory, const char *name, u32 mode) {
    return {call(__NR_mkdirat, directory, name, mode)};
}
// Follows a symbolic link: for what was just made where nobody else can put anything.
PHT_INLINE ErrorOr<void> change_mode_at(int directory, const char *name, u32 mode) {
    return {call(__NR_fchmodat, directory, name, mode)};
}
PHT_INLINE ErrorOr<void> unlink_at(int directory, const char *name) {
    return {call(__NR_unlinkat, directory, name, 0)};
}
PHT_INLINE ErrorOr<void> remove_directory_at(int directory, const char *name) {
    return {call(__NR_unlinkat, directory, name, AT_REMOVEDIR)};
}
// Replaces what has the new name, as rename(2) does.
PHT_INLINE ErrorOr<void> rename_at(int from, const char *name, int to, const char *new_name) {
    return {call(__NR_renameat2, from, name, to, new_name, 0)};
}
PHT_INLINE ErrorOr<size_t> write(int fd, const void *from, size_t size) {
    return {call(__NR_write, fd, from, size)};
}
PHT_INLINE ErrorOr<void> sync(int fd) {
    return {call(__NR_fsync, fd)};
}
PHT_INLINE ErrorOr<void> sync_data(int fd) {
    return {call(__NR_fdatasync, fd)};
}
// Entries of a directory, as struct linux_dirent64; see getdents(2).
PHT_INLINE ErrorOr<size_t> read_directory(int fd, void *to, size_t size) {
    return {call(__NR_getdents64, fd, to, size)};
}
// Gives back what a stretch takes on disk: it reads as zeros.
PHT_INLINE ErrorOr<void> punch_hole(int fd, u64 offset, u64 length) {
    return {call(__NR_fallocate, fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length)};
}
// Sets access and modification time of an open file, in seconds since the epoch.
PHT_INLINE ErrorOr<void> set_times(int fd, u64 seconds) {
    const u64 times[4] = {seconds, 0, seconds, 0};
    return {call(__NR_utimensat, fd, 0, times, 0)};
}

// A lock on a whole file that belongs to its open description (F_OFD_SETLK of fcntl(2)): gone with
// its holder, and not shared by another thread that opens the file. EAGAIN where somebody has it.
inline ErrorOr<void> set_lock(int fd, short type) {
    struct flock lock = {};  // all of it: from 0 to the end
    lock.l_type = type;
    return {call(__NR_fcntl, fd, F_OFD_SETLK, &lock)};
}
inline ErrorOr<void> try_lock(int fd) {
    return set_lock(fd, F_WRLCK);
}
// Gives it back, even where a forked child has the descriptor too.
inline void unlock(int fd) {
    (void)set_lock(fd, F_UNLCK);
}

inline u64 process_id() {
    return static_cast<u64>(call(__NR_getpid));
}

}  // namespace pht::sys
