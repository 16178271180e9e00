#include "builder/copy.h"

#include "kernel/sys_write.h"

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

ErrorOr<void> CopyFile::open_at(int directory, const char *name) {
    const auto fd = sys::open_at(directory, name, O_RDWR | O_NOFOLLOW);
    written_.take(fd);
    if (!fd.ok()) return Error(fd);
    return {};
}

ErrorOr<void> CopyFile::create_at(int directory, const char *name) {
    const auto fd = sys::create_at(directory, name, O_RDWR | O_EXCL, 0600);
    written_.take(fd);
    if (!fd.ok()) return Error(fd);
    use(written_);
    return {};
}

// What lies between its pieces, and holes, are zero.
Trouble CopyFile::read(size_t chunk, bool *hole) {
    if (!buffer_.data()) return failed_call("mmap", Error{ENOMEM});
    const auto filled =
        fill(layout_, source_, chunk * kHugeSize, layout_.chunk_size(chunk), buffer_.data());
    if (!filled.ok()) return failed_call("read", filled);
    *hole = filled.value();
    return {};
}

Trouble CopyFile::write(size_t chunk) {
    bool hole = false;
    const Trouble problem = read(chunk, &hole);
    if (!problem.ok()) return problem;
    if (hole && !(layout_.uses[chunk] & kUseText)) return {};
    const u64 start = chunk * kHugeSize, size = layout_.chunk_size(chunk);
    for (u64 done = 0; done < size;) {
        const auto got =
            sys::uninterrupted([&] {
                return sys::pwrite(written_, reinterpret_cast<u64>(buffer_.data()) + done,
                                   size - done, start + done);
            }).nonzero(EIO);
        if (!got.ok()) {
            // Half a chunk would be taken for another file's.
            (void)sys::punch_hole(written_, start, size);
            return failed_call("write", got);
        }
        done += got.value();
    }
    return {};
}

ErrorOr<bool> CopyFile::is_blank(size_t chunk) const {
    return is_hole(target_, chunk * kHugeSize, layout_.chunk_size(chunk));
}

Trouble CopyFile::compare(size_t chunk, bool *same) {
    *same = true;
    bool hole = false;
    const Trouble problem = read(chunk, &hole);
    if (!problem.ok()) return problem;
    const auto blank = is_blank(chunk);
    if (hole && blank.ok() && blank.value()) return {};
    const Outcome found =
        window_.expect(chunk * kHugeSize, buffer_.data(), layout_.chunk_size(chunk));
    if (found.ok()) return {};
    *same = false;
    return found.status == Status::damaged ? Trouble{}
                                           : failed_call("reading the copy", Error{found.error});
}

Trouble compare_copy(const Layout &layout, int source, int target, const u8 *present,
                     u64 *differs) {
    *differs = 0;
    sys::FileIdentity file;
    const auto result = sys::identify(target, &file);
    if (!result.ok()) return failed_call("statx", result);
    if (file.size != layout.size) return {};
    CopyFile copy(layout, source);
    copy.use(target);
    for (size_t chunk = 0; chunk < layout.uses.size(); ++chunk) {
        if (!has_bit(present, chunk)) continue;
        bool same;
        const Trouble problem = copy.compare(chunk, &same);
        if (!problem.ok()) return problem;
        *differs = chunk * kHugeSize;
        if (!same) return {};
    }
    *differs = ~0ull;
    return {};
}

}  // namespace pht
