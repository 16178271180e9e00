#include "builder/copy.h"

#include "kernel/sys_write.h"
#include "store/copy_window.h"

namespace pht {

namespace {

using sys::failed;

// Whether nothing was ever written there. 0 or 1, or -errno.
long is_hole(int fd, u64 offset, u64 length) {
    const long data = sys::seek(fd, offset, SEEK_DATA);
    if (!failed(data)) return static_cast<u64>(data) >= offset + length;
    if (data != -ENXIO) return 0;  // a file system that cannot tell
    // No data up to the end; or the file ends earlier by now, which reading will tell.
    sys::FileIdentity file;
    const long result = sys::identify(fd, &file);
    return failed(result) ? result : file.size >= offset + length;
}

long read_all(int fd, u8 *to, size_t size, u64 offset) {
    while (size > 0) {
        const long got = sys::uninterrupted([&] { return sys::pread(fd, to, size, offset); });
        if (failed(got)) return got;
        if (got == 0) return -EIO;  // the file ended early
        const auto n = static_cast<size_t>(got);
        to += n, offset += n, size -= n;
    }
    return 0;
}

bool is_mappable(const Layout &layout, u64 start) {
    for (const Range &range : layout.ranges)
        if (range.offset <= start && start - range.offset < range.length) return true;
    return false;
}

}  // namespace

long fill(const Layout &layout, int source, u64 start, size_t size, u8 *to, bool *hole) {
    const u64 end = start + size;
    u64 covered = 0;
    *hole = true;
    for (const CopyPiece &piece : layout.pieces) {
        const u64 a = max(piece.at, start), b = min(piece.at + piece.length, end);
        if (a < b) covered += b - a;
    }
    // Cleared before, since parts may be holes.
    if (covered < size) clear(to, size);
    for (const CopyPiece &piece : layout.pieces) {
        const u64 a = max(piece.at, start), b = min(piece.at + piece.length, end);
        if (a >= b) continue;
        const u64 origin = piece.origin + (a - piece.at);
        const long nothing = is_hole(source, origin, b - a);
        if (failed(nothing)) return nothing;
        if (nothing) {
            clear(to + (a - start), b - a);
            continue;
        }
        if (const long error = read_all(source, to + (a - start), b - a, origin)) return error;
        *hole = false;
    }
    for (const Patch &patch : layout.patches) {
        const u64 a = max(patch.at, start), b = min(patch.at + patch.size, end);
        if (a >= b) continue;
        copy(to + (a - start), layout.bytes.data() + patch.from + (a - patch.at), b - a);
        *hole = false;
    }
    return 0;
}

Trouble write_copy(const Layout &layout, int source, int target) {
    CopyBuffer buffer;
    if (!buffer.data()) return failed_call("mmap", -ENOMEM);
    for (u64 start = 0; start < layout.size; start += kHugeSize) {
        const u64 size = min(kHugeSize, layout.size - start);
        bool hole;
        if (const long error = fill(layout, source, start, size, buffer.data(), &hole))
            return failed_call("read", error);
        if (hole && !is_mappable(layout, start)) continue;
        for (u64 done = 0; done < size;) {
            const long got = sys::uninterrupted([&] {
                return sys::pwrite(target, reinterpret_cast<u64>(buffer.data()) + done, size - done,
                                   start + done);
            });
            if (failed(got) || got == 0) return failed_call("write", got ? got : -EIO);
            done += static_cast<u64>(got);
        }
    }
    const long result = sys::ftruncate(target, layout.size);
    return failed(result) ? failed_call("ftruncate", result) : Trouble{};
}

Trouble compare_copy(const Layout &layout, int source, int target, u64 *differs) {
    *differs = 0;
    sys::FileIdentity file;
    long result = sys::identify(target, &file);
    if (failed(result)) return failed_call("statx", result);
    if (file.size != layout.size) return {};
    CopyBuffer buffer;
    if (!buffer.data()) return failed_call("mmap", -ENOMEM);
    CopyWindow window(target);
    for (u64 start = 0; start < layout.size; start += kHugeSize) {
        const u64 size = min(kHugeSize, layout.size - start);
        bool hole;
        result = fill(layout, source, start, size, buffer.data(), &hole);
        if (failed(result)) return failed_call("read", result);
        if (hole && is_hole(target, start, size) == 1) continue;
        const Outcome same = window.expect(start, buffer.data(), size);
        if (same.status == Status::damaged) {
            *differs = start;
            return {};
        }
        if (!same.ok()) return failed_call("reading the copy", -long{same.error});
    }
    *differs = ~0ull;
    return {};
}

}  // namespace pht
