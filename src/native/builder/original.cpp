#include "builder/original.h"

#include "kernel/memory.h"
#include "store/record.h"
#include "store/trust.h"

namespace pht {

namespace {

// A change of a file would show in its times only when they have ticked since: what is changed
// twice within one tick has the same identity before and after. The longest tick of a kernel is
// 10 ms; of file systems that keep whole seconds (ext4 with small inodes, FAT, NFS from such) two
// seconds, and a change time without nanoseconds tells of one.
constexpr u64 kTick = 20'000'000, kCoarseTick = 2'000'000'000;

}  // namespace

Trouble outlast_tick(const sys::FileIdentity &file) {
    const u64 second = 1'000'000'000;
    const auto age = [&](u64 seconds, u32 nanoseconds) {
        const u64 then = seconds * second + nanoseconds, now = sys::wall_nanoseconds();
        // What lies ahead was changed just now by a clock that is ahead, or will be some day.
        return now > then ? now - then : 0;
    };
    const bool coarse = file.ctime_ns == 0;
    const u64 young = min(age(file.ctime, file.ctime_ns), age(file.mtime, file.mtime_ns));
    if (coarse && young < kCoarseTick)
        return trouble(Trouble::Kind::changed,
                       "was changed a moment ago, where times are whole seconds");
    const u64 since_change = age(file.ctime, file.ctime_ns);
    if (since_change < kTick) (void)sys::pause(kTick - since_change);
    return {};
}

bool find_real_path(int file, MappedArray<char> *path) {
    Buffer<40> link;
    link.add("/proc/self/fd/").add_decimal(static_cast<u64>(file));
    if (!path->resize(kPathLimit)) return false;
    const auto size = sys::read_link(link.data, path->data(), kPathLimit - 1);
    if (!size.ok() || (*path)[0] != '/') return false;
    (*path)[size.value()] = 0;
    return true;
}

// Whether others may read an open file, and pass all that leads to it.
bool everyone_can_read(int file) {
    MappedArray<char> path;
    sys::FileIdentity step;
    if (!find_real_path(file, &path) || !sys::identify(file, &step).ok() || !(step.mode & S_IROTH))
        return false;
    for (size_t at = length(path.data()); at > 0; --at) {
        if (path[at - 1] != '/') continue;
        path[at > 1 ? at - 1 : 1] = 0;
        if (!sys::identify_path(path.data(), &step).ok() || !(step.mode & S_IXOTH)) return false;
    }
    return true;
}

Trouble open_original(const Wanted &wanted, int *fd, sys::FileIdentity *file) {
    // What has that name now may be a FIFO without a writer.
    const auto opened = sys::open_at(AT_FDCWD, wanted.path, O_RDONLY | O_NONBLOCK);
    *fd = opened.ok() ? opened.value() : -1;
    if (!opened.ok()) return failed_call("open", str(wanted.path), opened);
    const auto result = sys::identify(*fd, file);
    if (!result.ok()) return failed_call("statx", str(wanted.path), result);
    if ((file->mode & S_IFMT) != S_IFREG)
        return trouble(Trouble::Kind::refused, "is no plain file");
    const sys::FileIdentity &mapped = wanted.file;
    if (mapped.inode) {
        const KeyText now = record_key(*file, 0), then = record_key(mapped, 0);
        if (!equal({now.data, now.size}, {then.data, then.size}))
            return trouble(Trouble::Kind::changed, "was changed since it was mapped");
    }
    return {};
}

}  // namespace pht
