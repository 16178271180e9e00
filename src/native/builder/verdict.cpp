#include "builder/verdict.h"

#include "builder/copy.h"
#include "kernel/scratch.h"
#include "store/record.h"
#include "store/trust.h"

namespace pht {

namespace {

using sys::failed;

// "259:0 6.18.0": of which file system and kernel a verdict tells.
Buffer<128> here(const StoreWriter &writer) {
    Buffer<128> out;
    sys::FileIdentity file;
    if (failed(sys::identify(writer.version(), &file))) return out;
    const sys::KernelNames kernel;
    out.add_hex(file.dev_major).add(":").add_hex(file.dev_minor).add(" ").add(kernel.release());
    return out;
}

Trouble probe(int fd, u64 *bytes) {
    const long result = probe_huge(fd, kHugeSize, kHugeSize, false, bytes);
    return failed(result) ? failed_call("mapping a file just written", result) : Trouble{};
}

}  // namespace

Verdict remembered_verdict(const StoreWriter &writer) {
    Outcome outcome;
    sys::FileIdentity file;
    const Descriptor fd(open_file(writer.version(), "verdict", &file, &outcome));
    if (fd < 0) return Verdict::unknown;
    char text[160];
    const long got = sys::pread(fd, text, sizeof text, 0);
    if (got <= 0) return Verdict::unknown;
    const Str told = {text, static_cast<size_t>(got)};
    constexpr Verdict kAll[] = {Verdict::written, Verdict::evicted, Verdict::never};
    for (const Verdict verdict : kAll) {
        Buffer<160> wanted;
        wanted.add(here(writer).data).add(" ").add(kVerdictNames[static_cast<int>(verdict)]);
        wanted.add("\n");
        if (!equal(told, {wanted.data, wanted.size})) continue;
        const u64 now = sys::wall_seconds();
        const bool lasts =
            verdict == Verdict::written || (now >= file.mtime && now - file.mtime < kDay);
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
    return sys::raw(sys::nr::prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0) > 0;
}

Verdict judge_copy(int copy, u64 offset) {
    u64 bytes = 0;
    return probe_huge(copy, offset, kHugeSize, false, &bytes) == 0 && bytes ? Verdict::written
                                                                            : Verdict::unknown;
}

Trouble try_file(int fd, Verdict *verdict) {
    CopyBuffer buffer;
    if (!buffer.data()) return failed_call("mmap", -ENOMEM);
    for (size_t at = 0; at < kHugeSize; at += kPageSize) buffer.data()[at] = 0x90;
    for (u64 at = 0; at < 2 * kHugeSize;) {
        const u64 done = at % kHugeSize;
        const long got =
            sys::pwrite(fd, reinterpret_cast<u64>(buffer.data()) + done, kHugeSize - done, at);
        if (failed(got) || got == 0) return failed_call("write", got ? got : -EIO);
        at += static_cast<u64>(got);
    }
    u64 bytes = 0;
    Trouble problem = probe(fd, &bytes);
    *verdict = Verdict::written;
    if (!problem.ok() || bytes) return problem;
    const long result = sys::sync_data(fd);
    if (failed(result)) return failed_call("fdatasync", result);
    sys::drop_cached(fd, 0, 0);
    problem = probe(fd, &bytes);
    *verdict = bytes ? Verdict::evicted : Verdict::never;
    return problem;
}

Trouble judge(const StoreWriter &writer, Verdict *verdict) {
    *verdict = remembered_verdict(writer);
    if (*verdict != Verdict::unknown) return {};
    if (has_huge_pages_disabled())
        return trouble(Trouble::Kind::io, "huge pages are disabled for this process (prctl)");
    Buffer<48> name;
    name.add_decimal(sys::process_id()).add("-probe");
    const long fd = sys::create_at(writer.tmp(), name.data, O_RDWR | O_EXCL, 0600);
    if (failed(fd)) return failed_call("open", str("v1/tmp"), fd);
    const Descriptor file(fd);
    sys::unlink_at(writer.tmp(), name.data);
    const Trouble problem = try_file(file, verdict);
    return problem.ok() ? remember(writer, *verdict) : problem;
}

}  // namespace pht
