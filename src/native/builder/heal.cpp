#include "builder/heal.h"

#include "builder/entry.h"
#include "builder/verdict.h"
#include "kernel/scratch.h"
#include "store/mend.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr u64 kUnhurried = 600ul * 1'000'000'000;  // nanoseconds

// A copy, mapped a page at a time as text is.
class Healing : NonCopyable {
public:
    Healing(const StoreWriter &writer, int copy, Healed *healed)
        : in_memory_(writer.spec().shared_memory), copy_(copy), healed_(healed) {}

    Trouble heal(const RecordView &record);

private:
    ErrorOr<void> heal_page(u64 offset);
    Outcome mend(u64 offset, u64 address);
    bool is_cached(u64 offset);
    ErrorOr<u8> look(u64 address);

    const bool in_memory_;
    const int copy_;
    Healed *const healed_;
    Pagemap pagemap_;
    Mender mender_{kUnhurried, true};
    Outcome why_ = {Status::no_huge_page, Call::none, 0};
};

bool Healing::is_cached(u64 offset) {
    const Cached there = mender_.cached(copy_, offset, kHugeSize);
    return !there.known || there.pages > 0;
}

// How the kernel maps what is there of the 2 MiB at `address`. The first touch of a small page maps
// a few around it, of a huge one all.
ErrorOr<u8> Healing::look(u64 address) {
    const auto touched = sys::madvise(address, kPageSize, MADV_POPULATE_READ);
    if (!touched.ok()) return Error(touched);
    u8 huge = 0;
    const auto found = pagemap_.find_huge(address, 1, &huge);
    if (!found.ok()) return Error(found);
    return success(huge);
}

Outcome Healing::mend(u64 offset, u64 address) {
    if (!in_memory_) return mender_.mend(copy_, pagemap_, offset, address);
    const auto result = collapse(address, kHugeSize);
    return result.ok() ? done() : refused(Call::collapse, result);
}

ErrorOr<void> Healing::heal_page(u64 offset) {
    ++healed_->pages;
    if (!is_cached(offset)) return {};
    ++healed_->cached;
    Scratch scratch(kHugeSize);
    if (const auto mapped = scratch.map(copy_, offset, trial_protection()); !mapped.ok())
        return mapped;
    const auto advised = sys::madvise(scratch.address(), kHugeSize, MADV_HUGEPAGE);
    if (!advised.ok()) return advised;
    auto huge = look(scratch.address());
    if (!huge.ok()) return Error(huge);
    healed_->before += huge.value();
    if (!huge.value()) {
        const Outcome outcome = mend(offset, scratch.address());
        if (!outcome.ok()) why_ = outcome;
        if (outcome.status == Status::refused && outcome.call == Call::read)
            return Error{outcome.error};
        huge = look(scratch.address());
        if (!huge.ok()) return Error(huge);
    }
    healed_->after += huge.value();
    return {};
}

Trouble Healing::heal(const RecordView &record) {
    const auto opened = pagemap_.open();
    if (!opened.ok()) return failed_call("/proc/self/pagemap", opened);
    const Record &head = *record.head;
    for (u64 offset = 0; offset + kHugeSize <= head.object_size; offset += kHugeSize) {
        bool mapped = false;
        for (u32 i = 0; i < head.range_count; ++i)
            mapped = mapped || (record.ranges[i].offset < offset + kHugeSize &&
                                offset < record.ranges[i].offset + record.ranges[i].length);
        if (!mapped || !record.has(offset)) continue;
        const auto result = heal_page(offset);
        if (!result.ok()) return failed_call("reading its copy", result);
    }
    if (healed_->after < healed_->cached) {
        const StatusText &text = kStatusTexts[static_cast<int>(why_.status)];
        healed_->reason.add(text.sentence);
        if (why_.call != Call::none && why_.error) {
            healed_->reason.add(": ").add(kCallNames[static_cast<int>(why_.call)]).add(": ");
            add_error(Error{why_.error}, &healed_->reason);
        }
    }
    return {};
}

}  // namespace

Trouble heal_entry(const StoreWriter &writer, const char *name, Healed *healed) {
    if (has_huge_pages_disabled())
        return trouble(Trouble::Kind::io, "huge pages are disabled for this process (prctl)");
    StoredFile stored;
    if (!stored.data()) return failed_call("mmap", Error{ENOMEM});
    stored.read(writer.index(), name);
    if (!stored.is_record()) return trouble(Trouble::Kind::gone, "there is no such entry any more");
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer, stored.record().path, &file, &problem);
    if (!fd.ok()) return problem;
    const Descriptor copy(fd);
    if (file.size != stored.record().head->object_size)
        return trouble(Trouble::Kind::refused, "its copy is not what was written");
    if (!writer.spec().shared_memory) {
        // Only what is on disk can be dropped; and once it was, nobody sees any more that it is.
        const auto written = sys::sync_data(copy);
        if (!written.ok()) {
            mark_lost(copy, file);
            return failed_call("fdatasync", written);
        }
        if (!stored.record().durable() && !stored.record().proven &&
            check_written(writer.index(), name, copy).status == Status::damaged)
            return trouble(Trouble::Kind::refused, "its copy could not be written to disk");
    }
    Healing healing(writer, copy, healed);
    return healing.heal(stored.record());
}

}  // namespace pht
