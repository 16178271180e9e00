#include "builder/copy.h"

#include "kernel/sys_write.h"
#include "store/copy_window.h"

namespace pht {

namespace {

// Whether nothing was ever written there.
ErrorOr<bool> is_hole(int fd, u64 offset, u64 length) {
    const auto data = sys::seek(fd, offset, SEEK_DATA);
    if (data.ok()) return success(data.value() >= offset + length);
    if (data.error() != ENXIO) return success(false);  // a file system that cannot tell
    // No data up to the end; or the file ends earlier by now, which reading will tell.
    sys::FileIdentity file;
    const auto result = sys::identify(fd, &file);
    if (!result.ok()) return Error(result);
    return success(file.size >= offset + length);
}

bool is_mappable(const Layout &layout, u64 start) {
    for (const Range &range : layout.ranges)
        if (range.offset <= start && start - range.offset < range.length) return true;
    return false;
}

}  // namespace

ErrorOr<bool> fill(const Layout &layout, int source, u64 start, size_t size, u8 *to) {
    const u64 end = start + size;
    u64 covered = 0;
    bool hole = true;
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
        const auto nothing = is_hole(source, origin, b - a);
        if (!nothing.ok()) return nothing;
        if (nothing.value()) {
            clear(to + (a - start), b - a);
            continue;
        }
        const auto got = sys::read_at(source, to + (a - start), b - a, origin);
        if (!got.ok()) return Error(got);
        if (got.value() < b - a) return Error{EIO};  // the file ended early
        hole = false;
    }
    for (const Patch &patch : layout.patches) {
        const u64 a = max(patch.at, start), b = min(patch.at + patch.size, end);
        if (a >= b) continue;
        copy(to + (a - start), layout.bytes.data() + patch.from + (a - patch.at), b - a);
        hole = false;
    }
    return success(hole);
}

Trouble write_copy(const Layout &layout, int source, int target) {
    CopyBuffer buffer;
    if (!buffer.data()) return failed_call("mmap", Error{ENOMEM});
    for (u64 start = 0; start < layout.size; start += kHugeSize) {
        const u64 size = min(kHugeSize, layout.size - start);
        const auto hole = fill(layout, source, start, size, buffer.data());
        if (!hole.ok()) return failed_call("read", hole);
        if (hole.value() && !is_mappable(layout, start)) continue;
        for (u64 done = 0; done < size;) {
            const auto got =
                sys::uninterrupted([&] {
                    return sys::pwrite(target, reinterpret_cast<u64>(buffer.data()) + done,
                                       size - done, start + done);
                }).nonzero(EIO);
            if (!got.ok()) return failed_call("write", got);
            done += got.value();
        }
    }
    const auto result = sys::ftruncate(target, layout.size);
    return result.ok() ? Trouble{} : failed_call("ftruncate", result);
}

Trouble compare_copy(const Layout &layout, int source, int target, u64 *differs) {
    *differs = 0;
    sys::FileIdentity file;
    const auto result = sys::identify(target, &file);
    if (!result.ok()) return failed_call("statx", result);
    if (file.size != layout.size) return {};
    CopyBuffer buffer;
    if (!buffer.data()) return failed_call("mmap", Error{ENOMEM});
    CopyWindow window(target);
    for (u64 start = 0; start < layout.size; start += kHugeSize) {
        const u64 size = min(kHugeSize, layout.size - start);
        const auto hole = fill(layout, source, start, size, buffer.data());
        if (!hole.ok()) return failed_call("read", hole);
        if (hole.value()) {
            const auto same = is_hole(target, start, size);
            if (same.ok() && same.value()) continue;
        }
        const Outcome same = window.expect(start, buffer.data(), size);
        if (same.status == Status::damaged) {
            *differs = start;
            return {};
        }
        if (!same.ok()) return failed_call("reading the copy", Error{same.error});
    }
    *differs = ~0ull;
    return {};
}

}  // namespace pht
