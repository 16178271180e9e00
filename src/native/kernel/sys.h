// Typed system calls: what the kernel answers, as a value or an errno; nothing where nobody could
// make anything of it. Inline on purpose: every use is a call site of its own, which is how the
// tests fail them one by one (a seccomp filter on the instruction pointer).
#pragma once

#include "kernel/error_or.h"
#include "kernel/uapi.h"

#if defined(__x86_64__)
#include "kernel/syscall_x86_64.h"
#elif defined(__aarch64__)
#include "kernel/syscall_aarch64.h"
#else
#error "pyhugetext's core knows x86_64 and aarch64 only; the build skips it elsewhere"
#endif

namespace pht::sys {

#define PHT_INLINE __attribute__((always_inline)) inline

// The arguments of a call as the kernel takes them.
template <class T> PHT_INLINE long word(T *pointer) {
    return reinterpret_cast<long>(pointer);
}
template <class T> PHT_INLINE long word(T number) {
    return static_cast<long>(number);
}
template <class... Arguments> PHT_INLINE long call(long number, Arguments... arguments) {
    return raw(number, word(arguments)...);
}

PHT_INLINE ErrorOr<int> open(const char *path) {
    return {call(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC)};
}
PHT_INLINE ErrorOr<int> open_at(int directory, const char *path, int flags) {
    return {call(__NR_openat, directory, path, flags | O_CLOEXEC)};
}
// With the RESOLVE_ flags of openat2(2), Linux 5.6.
PHT_INLINE ErrorOr<int> open_inside(int directory, const char *path, int flags, u64 resolve) {
    const u64 how[3] = {static_cast<u64>(flags | O_CLOEXEC), 0, resolve};
    return {call(__NR_openat2, directory, path, how, sizeof how)};
}
PHT_INLINE ErrorOr<size_t> read(int fd, void *to, size_t size) {
    return {call(__NR_read, fd, to, size)};
}
PHT_INLINE ErrorOr<size_t> pread(int fd, void *to, size_t size, u64 offset) {
    return {call(__NR_pread64, fd, to, size, offset)};
}
// Writing from program memory answers EFAULT where reading it would raise SIGBUS or SIGSEGV, so it
// is also the safe way to copy text whose file may have been truncated.
PHT_INLINE ErrorOr<size_t> pwrite(int fd, u64 from, size_t size, u64 offset) {
    return {call(__NR_pwrite64, fd, from, size, offset)};
}
PHT_INLINE void close(int fd) {
    call(__NR_close, fd);
}
PHT_INLINE ErrorOr<u64> mmap(u64 address, u64 size, int prot, int flags, int fd, u64 offset) {
    return {call(__NR_mmap, address, size, prot, flags, fd, offset)};
}
PHT_INLINE void munmap(u64 address, u64 size) {
    call(__NR_munmap, address, size);
}
PHT_INLINE ErrorOr<void> mprotect(u64 address, u64 size, int prot) {
    return {call(__NR_mprotect, address, size, prot)};
}
PHT_INLINE ErrorOr<void> madvise(u64 address, u64 size, int advice) {
    return {call(__NR_madvise, address, size, advice)};
}
// Moves a mapping onto `target`, replacing what is there, in one step; see mremap(2).
PHT_INLINE ErrorOr<void> mremap_onto(u64 from, u64 size, u64 target) {
    return {call(__NR_mremap, from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, target)};
}
// Moves the pages of a mapping to `target` and leaves the mapping, empty, where it is.
PHT_INLINE ErrorOr<void> mremap_away(u64 from, u64 size, u64 target) {
    return {call(__NR_mremap, from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
                 target)};
}
PHT_INLINE ErrorOr<int> memfd_create(const char *name, unsigned flags) {
    return {call(__NR_memfd_create, name, flags)};
}
PHT_INLINE ErrorOr<void> ftruncate(int fd, u64 size) {
    return {call(__NR_ftruncate, fd, size)};
}
// A lock on an open file that is not waited for: EAGAIN where another process has it; see flock(2).
PHT_INLINE ErrorOr<void> try_lock_file(int fd) {
    return {call(__NR_flock, fd, LOCK_EX | LOCK_NB)};
}
// The same, shared. It stays for as long as anything of the open file is mapped.
PHT_INLINE ErrorOr<void> share_file(int fd) {
    return {call(__NR_flock, fd, LOCK_SH | LOCK_NB)};
}
PHT_INLINE void unlock_file(int fd) {
    call(__NR_flock, fd, LOCK_UN);
}
// Sleeps; EINTR when a signal handler ran meanwhile.
PHT_INLINE ErrorOr<void> pause(u64 nanoseconds) {
    const u64 time[2] = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    return {call(__NR_nanosleep, time, 0)};
}
// The soft limit, as getrlimit(2) gives it, or `unknown`. Beyond RLIMIT_FSIZE a write or
// ftruncate(2) raises SIGXFSZ, which kills.
constexpr u64 kUnlimited = ~0ull;
inline u64 resource_limit(int which, u64 unknown) {
    u64 limits[2] = {unknown, unknown};
    call(__NR_prlimit64, 0, which, 0, limits);
    return limits[0];
}
PHT_INLINE ErrorOr<void> add_seals(int fd, int seals) {
    return {call(__NR_fcntl, fd, F_ADD_SEALS, seals)};
}
PHT_INLINE ErrorOr<size_t> ioctl(int fd, unsigned long request, void *argument) {
    return {call(__NR_ioctl, fd, request, argument)};
}
// Copies inside this process; answers EFAULT instead of raising a signal; see process_vm_readv(2).
PHT_INLINE ErrorOr<size_t> copy_memory(u64 to, u64 from, u64 size) {
    struct Iovec {
        u64 base, size;
    } local = {to, size}, remote = {from, size};
    return {call(__NR_process_vm_readv, call(__NR_getpid), &local, 1, &remote, 1, 0)};
}
// Drops clean cached pages of a file that nobody has mapped; see posix_fadvise(2).
PHT_INLINE ErrorOr<void> drop_cached(int fd, u64 offset, u64 size) {
    return {call(__NR_fadvise64, fd, offset, size, POSIX_FADV_DONTNEED)};
}
// Begins to write back what is dirty of a stretch of a file, without waiting for it.
PHT_INLINE ErrorOr<void> start_writing(int fd, u64 offset, u64 size) {
    return {call(__NR_sync_file_range, fd, offset, size, SYNC_FILE_RANGE_WRITE)};
}
// Waits for what is being written back of a file, which is nothing where it is clean, and tells the
// error of an earlier write-back that nobody was told yet; see sync_file_range(2).
PHT_INLINE ErrorOr<void> await_written(int fd) {
    return {call(__NR_sync_file_range, fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE)};
}
// How many pages of a file, or of a stretch of it, are cached and how many of those not on disk
// yet; Linux 6.5.
struct CachedPages {
    u64 cached = 0, dirty = 0, written_back = 0, evicted = 0, recently_evicted = 0;
};
// Not under valgrind, which complains on stderr of each call that it does not know.
PHT_INLINE ErrorOr<void> count_cached(int fd, u64 offset, u64 size, CachedPages *out) {
    if (under_valgrind()) return Error{ENOSYS};
    const u64 range[2] = {offset, size};
    return {call(__NR_cachestat, fd, range, out, 0)};
}
PHT_INLINE ErrorOr<void> count_cached(int fd, CachedPages *out) {
    return count_cached(fd, 0, 0, out);
}
// Changes the mode of an open file that is ours.
PHT_INLINE ErrorOr<void> change_mode(int fd, u32 mode) {
    return {call(__NR_fchmod, fd, mode)};
}
// Names anonymous memory in /proc/PID/maps; EINVAL where the kernel lacks CONFIG_ANON_VMA_NAME.
PHT_INLINE void name_memory(u64 address, u64 size, const char *name) {
    call(__NR_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, address, size, name);
}
// On which node of memory each of these pages of this process lies, or -errno where there is none;
// see move_pages(2). Nothing is moved.
PHT_INLINE ErrorOr<void> find_nodes(const u64 *pages, size_t count, int *nodes) {
    return {call(__NR_move_pages, 0, count, pages, 0, nodes, 0)};
}
// 0: no seccomp filter is on this thread, 2: one is. See prctl(2), PR_GET_SECCOMP.
PHT_INLINE ErrorOr<int> seccomp_mode() {
    return {call(__NR_prctl, PR_GET_SECCOMP, 0, 0, 0, 0)};
}
// Whether huge pages are disabled for this process; see prctl(2), PR_SET_THP_DISABLE.
PHT_INLINE ErrorOr<bool> huge_pages_disabled() {
    return {call(__NR_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0)};
}
PHT_INLINE ErrorOr<u64> seek(int fd, u64 offset, int whence) {
    return {call(__NR_lseek, fd, offset, whence)};
}
// Nanoseconds.
inline u64 clock(int which) {
    long time[2] = {0, 0};
    call(__NR_clock_gettime, which, time);
    return static_cast<u64>(time[0]) * 1000000000u + static_cast<u64>(time[1]);
}
inline u64 now() {
    return clock(CLOCK_MONOTONIC);
}

// Nanoseconds that this process has computed; see CLOCK_PROCESS_CPUTIME_ID of clock_gettime(2).
inline u64 processor_time() {
    return clock(CLOCK_PROCESS_CPUTIME_ID);
}

// Nanoseconds since `began`; 0 where the clock does not answer.
inline u64 since(u64 began) {
    const u64 end = now();
    return began && end > began ? end - began : 0;
}

// Calls again after EINTR. Signals are blocked while the core runs, so that is rare; a filter that
// always answers so must not hang the program either.
template <class Function> inline auto uninterrupted(Function function) {
    constexpr int kTries = 16;
    decltype(function()) result = Error{EINTR};
#pragma GCC unroll 1  // else the one call becomes sixteen
    for (int i = 0; i < kTries; ++i) {
        result = function();
        if (result.error() != EINTR) break;
    }
    return result;
}

// Reads so many bytes at `offset`, fewer where the file ends. Returns how many.
__attribute__((always_inline)) inline ErrorOr<size_t> read_at(int fd, void *to, size_t size,
                                                              u64 offset) {
    auto *const out = static_cast<char *>(to);
    size_t have = 0;
    while (have < size) {
        const auto got =
            uninterrupted([&] { return pread(fd, out + have, size - have, offset + have); });
        if (!got.ok()) return got;
        if (got.value() == 0) break;
        have += got.value();
    }
    return success(have);
}

// The running kernel's release, as in uname(2); NUL-terminated.
struct KernelNames {
    char names[6][65] = {};
    KernelNames() { call(__NR_uname, names); }
    const char *release() const { return names[2]; }
    const char *version() const { return names[3]; }
};

// Nanoseconds and seconds since the epoch.
inline u64 wall_nanoseconds() {
    return clock(CLOCK_REALTIME);
}
inline u64 wall_seconds() {
    return wall_nanoseconds() / 1000000000u;
}
// Sets access and modification time of an open file to now.
inline void touch(int fd) {
    call(__NR_utimensat, fd, 0, 0, 0);
}

// What statfs(2) tells of a file system.
struct FileSystem {
    u64 type = 0, block_size = 0, blocks = 0, free = 0, available = 0, files = 0, free_files = 0;
    u64 id = 0, name_length = 0, fragment_size = 0, flags = 0, spare[4] = {};
};
static_assert(sizeof(FileSystem) == 120);
inline ErrorOr<void> file_system_of(int fd, FileSystem *out) {
    return {call(__NR_fstatfs, fd, out)};
}

// The type of the file system a path is on.
inline ErrorOr<u64> file_system(const char *path) {
    FileSystem info;
    const ErrorOr<u64> result = {call(__NR_statfs, path, &info)};
    return result.ok() ? success(info.type) : result;
}

// The user ids of this process; see getresuid(2).
inline ErrorOr<void> users(u32 *real, u32 *effective, u32 *saved) {
    return {call(__NR_getresuid, real, effective, saved)};
}

// What statx(2) tells of a file, as far as the core asks.
struct FileIdentity {
    u32 dev_major = 0, dev_minor = 0;
    u64 inode = 0, size = 0;
    u64 mtime = 0, ctime = 0;  // seconds
    u32 mtime_ns = 0, ctime_ns = 0;
    u32 mode = 0, owner = 0;
    u64 disk_bytes = 0;  // allocated
    u64 atime = 0;       // seconds
    u32 links = 0;
    u64 mount = 0;  // its number; 0 before Linux 5.8
};
inline ErrorOr<void> identify_at(int fd, const char *path, int flags, FileIdentity *out) {
    struct Time {
        u64 seconds;
        u32 nanoseconds, spare;
    };
    struct Statx {
        u32 mask, blksize;
        u64 attributes;
        u32 nlink, uid, gid;
        u16 mode, spare0;
        u64 ino, size, blocks, attributes_mask;
        Time atime, btime, ctime, mtime;
        u32 rdev_major, rdev_minor, dev_major, dev_minor;
        u64 mount, spare[13];
    } info = {};
    static_assert(sizeof(Statx) == 256);
    constexpr u32 asked = STATX_BASIC_STATS | STATX_MNT_ID;
    const ErrorOr<void> result = {call(__NR_statx, fd, path, flags, asked, &info)};
    if (!result.ok()) return result;
    *out = {info.dev_major,
            info.dev_minor,
            info.ino,
            info.size,
            info.mtime.seconds,
            info.ctime.seconds,
            info.mtime.nanoseconds,
            info.ctime.nanoseconds,
            info.mode,
            info.uid,
            info.blocks * 512,
            info.atime.seconds,
            info.nlink,
            info.mask & STATX_MNT_ID ? info.mount : 0};
    return result;
}
inline ErrorOr<void> identify(int fd, FileIdentity *out) {
    return identify_at(fd, "", AT_EMPTY_PATH, out);
}
// What the kernel knows by itself, without asking a server or a FUSE process.
inline ErrorOr<void> identify_cached(int fd, FileIdentity *out) {
    return identify_at(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, out);
}
// Of the path itself where it is a symbolic link.
inline ErrorOr<void> identify_path(const char *path, FileIdentity *out) {
    return identify_at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, out);
}

// Whether the file may be written, or why not: a read-only file system included.
inline ErrorOr<void> may_write(int directory, const char *path) {
    return {call(__NR_faccessat, directory, path, W_OK)};
}
// The target of a symbolic link, not NUL-terminated; returns its size.
inline ErrorOr<size_t> read_link(const char *path, char *to, size_t size) {
    return {call(__NR_readlinkat, AT_FDCWD, path, to, size)};
}

// Keeps signal handlers of this thread out of a stretch of code. SIGSEGV and its like still kill,
// as they must. The C library's own are never blocked: glibc's set*id functions wait until every
// thread took signal 33, and 32 is for cancellation; musl uses 32 to 34.
class SignalsBlocked : NonCopyable {
public:
    SignalsBlocked() {
        constexpr u64 kOfLibc = 7ull << (32 - 1);
        const u64 all = ~kOfLibc;
        blocked_ = call(__NR_rt_sigprocmask, SIG_BLOCK, &all, &old_, 8) == 0;
    }
    ~SignalsBlocked() {
        if (blocked_) call(__NR_rt_sigprocmask, SIG_SETMASK, &old_, 0, 8);
    }

private:
    u64 old_ = 0;
    bool blocked_;
};

}  // namespace pht::sys
