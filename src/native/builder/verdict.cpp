#include "builder/verdict.h"

#include "builder/copy.h"
#include "kernel/filters.h"
#include "kernel/scratch.h"
#include "store/record.h"
#include "store/trust.h"

namespace pht {

namespace {

// "259:0 6.18.0": of which file system and kernel a verdict tells.
Buffer<128> here(const StoreWriter &writer) {
    Buffer<128> out;
    sys::FileIdentity file;
    if (!sys::identify(writer.version(), &file).ok()) return out;
    const sys::KernelNames kernel;
    out.add_hex(file.dev_major).add(":").add_hex(file.dev_minor).add(" ").add(kernel.release());
    return out;
}

constexpr u64 kSettles = 4'000'000;  // nanoseconds

Trouble probe(int fd, u64 *bytes) {
    const auto result = probe_huge(fd, kHugeSize, kHugeSize, false, bytes);
    return result.ok() ? Trouble{} : failed_call("mapping a file just written", result);
}

}  // namespace

Verdict remembered_verdict(const StoreWriter &writer) {
    Outcome outcome;
    sys::FileIdentity file;
    const Descriptor fd(open_file(writer.version(), "verdict", &file, &outcome));
    if (!fd.ok()) return Verdict::unknown;
    char text[160];
    const auto got = sys::pread(fd, text, sizeof text, 0);
    if (!got.ok() || got.value() == 0) return Verdict::unknown;
    const Str told = {text, got.value()};
    constexpr Verdict kAll[] = {Verdict::written, Verdict::evicted, Verdict::never,
                                Verdict::collapsed};
    for (const Verdict verdict : kAll) {
        Buffer<160> wanted;
        wanted.add(here(writer).data).add(" ").add(kVerdictNames[static_cast<int>(verdict)]);
        wanted.add("\n");
        if (!equal(told, {wanted.data, wanted.size})) continue;
        const u64 now = sys::wall_seconds();
        const bool lasts = serves_starts(verdict) || (now >= file.mtime && now - file.mtime < kDay);
        return lasts ? verdict : Verdict::unknown;
    }
    return Verdict::unknown;
}

Trouble remember(const StoreWriter &writer, Verdict verdict) {
    Buffer<160> text;
    text.add(here(writer).data).add(" ").add(kVerdictNames[static_cast<int>(verdict)]).add("\n");
    return writer.write_file(writer.version(), "verdict", text.data, text.size,
                             writer.spec().record_mode(), false);
}

bool has_huge_pages_disabled() {
    const auto disabled = sys::huge_pages_disabled();
    return disabled.ok() && disabled.value();
}

Verdict judge_copy(int copy, u64 offset) {
    u64 bytes = 0;
    const bool probed = probe_huge(copy, offset, kHugeSize, false, &bytes, trial_protection()).ok();
    return probed && bytes ? Verdict::written : Verdict::unknown;
}

Trouble try_file(int fd, Verdict *verdict) {
    CopyBuffer buffer;
    if (!buffer.data()) return failed_call("mmap", Error{ENOMEM});
    for (size_t at = 0; at < kHugeSize; at += kPageSize) buffer.data()[at] = 0x90;
    for (u64 at = 0; at < 2 * kHugeSize;) {
        const u64 done = at % kHugeSize;
        const auto got =
            sys::pwrite(fd, reinterpret_cast<u64>(buffer.data()) + done, kHugeSize - done, at)
                .nonzero(EIO);
        if (!got.ok()) return failed_call("write", got);
        at += got.value();
    }
    u64 bytes = 0;
    Trouble problem = probe(fd, &bytes);
    *verdict = Verdict::written;
    if (!problem.ok() || bytes) return problem;
    const auto result = sys::sync_data(fd);
    if (!result.ok()) return failed_call("fdatasync", result);
    (void)sys::drop_cached(fd, 0, 0);
    problem = probe(fd, &bytes);
    *verdict = bytes ? Verdict::evicted : Verdict::never;
    return problem;
}

Trouble try_memory(int fd, Verdict *verdict) {
    const u8 one = 1;
    auto result = sys::ftruncate(fd, kHugeSize);
    if (!result.ok()) return failed_call("ftruncate", result);
    const auto put = sys::pwrite(fd, reinterpret_cast<u64>(&one), 1, 0).nonzero(EIO);
    if (!put.ok()) return failed_call("write", put);
    u64 bytes = 0;
    result = probe_huge(fd, 0, kHugeSize, true, &bytes);
    if (bytes) *verdict = Verdict::written;
    // Another error than this one tells of the moment.
    if (!bytes && result.error() == EINVAL) *verdict = Verdict::never;
    return {};
}

namespace {

// Whether the kernel collapses a file that is on disk, and open for writing by nobody: with
// READ_ONLY_THP_FOR_FS. A tmpfs is no disk, whatever it does: what it holds is bounded as shared
// memory is.
bool is_collapsed(int fd) {
    sys::FileSystem system;
    if (!sys::file_system_of(fd, &system).ok() || system.type == TMPFS_MAGIC ||
        system.type == RAMFS_MAGIC)
        return false;
    u64 bytes = 0;
    // Right after it was written btrfs still holds on to some of it.
    if (!probe_huge(fd, 0, kHugeSize, true, &bytes).ok() && sys::pause(kSettles).ok())
        (void)probe_huge(fd, 0, kHugeSize, true, &bytes);
    return bytes > 0;
}

}  // namespace

Trouble judge(const StoreWriter &writer, Verdict *verdict) {
    *verdict = remembered_verdict(writer);
    if (*verdict != Verdict::unknown) return {};
    if (has_huge_pages_disabled())
        return trouble(Trouble::Kind::io, "huge pages are disabled for this process (prctl)");
    Buffer<48> name;
    name.add_decimal(sys::process_id()).add("-probe");
    const auto fd = sys::create_at(writer.tmp(), name.data, O_RDWR | O_EXCL, 0600);
    if (!fd.ok()) return failed_call("open", str("v1/tmp"), fd);
    const Descriptor again(sys::open_at(writer.tmp(), name.data, O_RDONLY | O_NOFOLLOW));
    (void)sys::unlink_at(writer.tmp(), name.data);
    const bool in_memory = writer.spec().shared_memory;
    const Trouble problem =
        in_memory ? try_memory(fd.value(), verdict) : try_file(fd.value(), verdict);
    sys::close(fd.value());
    if (problem.ok() && !in_memory && *verdict == Verdict::never && again.ok() &&
        is_collapsed(again))
        *verdict = Verdict::collapsed;
    if (!problem.ok() || *verdict == Verdict::unknown) return problem;
    // A seccomp filter answers with whatever errno it likes.
    if (in_memory && *verdict == Verdict::never && read_filters() != 0) return {};
    return remember(writer, *verdict);
}

bool is_restricted() {
    return has_huge_pages_disabled() || read_filters() != 0;
}

}  // namespace pht
