#include "builder/warm.h"

#include "builder/itself.h"
#include "builder/original.h"
#include "builder/verdict.h"
#include "kernel/scratch.h"
#include "store/copy_window.h"
#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

// Gets what was just written of a copy onto 2 MiB pages; the bytes of it that are, as the kernel
// shows. *refused: how the kernel answered in shared memory.
u64 settle(const StoreWriter &writer, const Added &added, ErrorOr<void> *refused) {
    if (writer.spec().shared_memory) *refused = collapse_copy(writer, added);
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer, added.path.data, &file, &problem);
    if (!fd.ok()) return 0;
    const Descriptor copy(fd);
    const auto look = [&](u64 *huge, u64 *all) {
        *huge = *all = 0;
        for (const Range &text : added.texts) {
            u64 bytes = 0;
            (void)probe_huge(copy, text.offset, text.length, false, &bytes, trial_protection());
            *huge += bytes;
            *all += text.length;
        }
    };
    u64 huge, all;
    look(&huge, &all);
    if (huge >= all || writer.spec().shared_memory) return huge;
    // Some file systems use 2 MiB folios only when they read: what is written back and dropped
    // comes back huge. Clean pages go; what others have mapped stays.
    (void)sys::sync_data(copy);
    (void)sys::drop_cached(copy, 0, 0);
    look(&huge, &all);
    // Others collapse what is on disk.
    if (huge < all && collapse_copy(writer, added).ok()) look(&huge, &all);
    return huge;
}

// Whether an entry of the system's store can be found from a container image as well. The file is
// open as `source`.
bool has_image(const StoreWriter &writer, int source, const sys::FileIdentity &file,
               const RecordView &record) {
    const Record &head = *record.head;
    BuildId id;
    MappedArray<char> path;
    if (!writer.spec().for_images || head.build_id_size > sizeof id.bytes) return true;
    if (!find_real_path(source, &path)) return true;
    sys::FileIdentity copied;
    Trouble problem;
    const auto fd = open_copy_at(writer, record.path, &copied, &problem);
    if (!fd.ok()) return false;
    const Descriptor copy(fd);
    CopyWindow window(copy);
    id.size = static_cast<u8>(head.build_id_size);
    if (id.size && !window.read(head.build_id_at, id.bytes, id.size).ok()) return false;
    StoredFile stored;
    stored.read(writer.index(), image_key(file, id, str(path.data()), head.bias).data);
    return stored.is_record() && equal(str(stored.record().path), str(record.path));
}

bool is_taken_itself(int source, const sys::FileIdentity &file, const Wanted &wanted) {
    Layout layout;
    return lay_out(source, file.size, wanted.bias, &layout).ok() && takes_itself(source, layout);
}

Trouble add(StoreWriter &writer, const Wanted &wanted, const Keep &keep, Boot &boot, Added *added) {
    Deadline none;
    return add_entry(writer, wanted, !writer.spec().shared_memory, keep, none, boot, added);
}

void warm_locked(StoreWriter &writer, Wanted wanted, Keep &keep, Made *made) {
    Boot boot;
    bool asked = false;
    int fd;
    sys::FileIdentity file;
    made->problem = open_original(wanted, &fd, &file);
    const Descriptor source(fd);
    if (!made->problem.ok()) return;
    const KeyText key = record_key(file, wanted.bias);
    StoredFile stored;
    if (!stored.data()) {
        made->problem = failed_call("mmap", Error{ENOMEM});
        return;
    }
    stored.read(writer.index(), key.data);
    bool there = stored.is_record();
    if (wanted.itself == Itself::to_ask) {
        const u64 kernel = there ? stored.record().head->refused_by : 0;
        asked = kernel != this_kernel();
        if (asked && is_taken_itself(source, file, wanted)) {
            made->status = Made::Status::unneeded;
            // Who asked for a store keeps what no kernel was asked for.
            if (kernel) drop_record(writer, key.data, boot);
            return;
        }
        if (!is_restricted()) wanted.itself = Itself::refused;
    }
    if (there && (!check_boot(*stored.record().head, boot).ok() ||
                  !is_record_of(*stored.record().head, file, wanted.bias) ||
                  !why_not_mapped(writer, stored.record()).ok())) {
        drop_record(writer, key.data, boot);
        there = false;
    }
    const bool in_memory = writer.spec().shared_memory;
    Added added;
    Made::Status status = Made::Status::present;
    if (!there && !in_memory && has_too_many_biases(writer, file, wanted.bias)) {
        made->problem = trouble(Trouble::Kind::refused,
                                "it is loaded at ever other addresses; its entries are bounded");
        return;
    }
    if (!there || stored.record().is_growing() || (wanted.whole && !stored.record().has_all())) {
        status = Made::Status::built;
        made->problem = add(writer, wanted, keep, boot, &added);
    } else {
        added.path.add(stored.record().path);
        added.size = stored.record().head->object_size;
        const bool lasting = in_memory || (stored.record().durable() &&
                                           has_image(writer, source, file, stored.record()));
        const bool tells = asked && wanted.itself == Itself::refused;
        if (!lasting) status = Made::Status::promoted;
        // With its record for images, or with what the kernel said.
        if ((!lasting && writer.spec().for_images) || tells)
            made->problem = add(writer, wanted, keep, boot, &added);
        else if (!lasting)
            made->problem = promote_entry(writer, key.data, stored);
    }
    if (!made->problem.ok()) return;
    if (!keep.add({key.data, key.size})) return;
    made->status = status;
    made->key = key;
    made->size = added.size;
    made->written = added.written;
    if (added.texts.empty()) return;
    made->looked = true;
    ErrorOr<void> refused;
    made->huge = settle(writer, added, &refused);
    made->small = !made->huge;
    if (!in_memory || made->huge || refused.error() != EINVAL || has_huge_pages_disabled()) return;
    // Of no use to anybody, and paid for in memory.
    if (!take_back(writer, added, false)) drop_record(writer, key.data, boot);
    made->problem = failed_call("the kernel does not collapse shared memory", refused);
}

}  // namespace

// Errors of MADV_COLLAPSE that tell of this moment: a page was busy, no 2 MiB were free.
ErrorOr<void> collapse_copy(const StoreWriter &writer, const Added &added) {
    constexpr u64 kPauses[] = {0, 1'000'000, 4'000'000, 16'000'000};  // nanoseconds
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer, added.path.data, &file, &problem);
    if (!fd.ok()) return Error(fd);
    const Descriptor copy(fd);
    ErrorOr<void> result = Error{EINVAL};
    for (const u64 pause : kPauses) {
        if (pause && sys::pause(pause).error() == EINTR) return Error{EINTR};
        u64 huge = 0;
        for (const Range &text : added.texts) {
            u64 bytes = 0;
            const auto probed =
                probe_huge(copy, text.offset, text.length, true, &bytes, trial_protection());
            if (!huge) result = probed;
            huge += bytes;
        }
        if (huge || added.texts.empty()) return {};
        // Collapsed, and small again at once: somebody was at its pages.
        if (result.ok()) result = Error{EAGAIN};
        if (result.error() != EAGAIN && result.error() != EBUSY && result.error() != ENOMEM) break;
    }
    return result;
}

bool take_back(const StoreWriter &writer, const Added &added, bool brief) {
    StoredFile stored;
    if (!stored.data()) return false;
    stored.read(writer.index(), added.key.data);
    if (!stored.is_record()) return false;
    const RecordView &record = stored.record();
    auto *const present = stored.data() + (record.present - stored.data());
    auto *const head = reinterpret_cast<Record *>(stored.data());
    for (const Range &text : added.texts)
        for (u64 at = 0; at < text.length; at += kHugeSize) {
            head->lacking += record.has(text.offset + at);
            clear_bit(present, (text.offset + at) / kHugeSize);
        }
    bool any = false;
    for (u32 i = 0; i < record.head->range_count; ++i)
        for (u64 at = 0; at < record.ranges[i].length; at += kHugeSize)
            any = any || record.has(record.ranges[i].offset + at);
    return any && write_resting(writer, added.key.data, stored, brief).ok();
}

Trouble why_not_mapped(const StoreWriter &writer, const RecordView &record) {
    const Record &head = *record.head;
    sys::FileIdentity file;
    Trouble problem;
    const auto fd = open_copy_at(writer, record.path, &file, &problem);
    if (!fd.ok()) return problem;
    const Descriptor copy(fd);
    if (file.size != head.object_size) {
        problem = trouble(Trouble::Kind::refused, "its copy has ");
        problem.text.add_decimal(file.size).add(" bytes instead of ").add_decimal(head.object_size);
        return problem;
    }
    if (file.mode & kLost)
        return trouble(Trouble::Kind::refused, "its copy could not be written to disk");
    CopyWindow window(copy);
    const Outcome same = window.expect(0, record.header, head.header_size);
    if (same.status == Status::damaged)
        return trouble(Trouble::Kind::refused, "its copy begins with other headers");
    return same.ok() ? Trouble{} : failed_call("its copy cannot be read", Error{same.error});
}

void warm_entry(StoreWriter &writer, const Wanted &wanted, Keep &keep, Made *made) {
    writer.evict_used();
    bool waited;
    made->problem = writer.lock(kPatientTries, &waited);
    if (!made->problem.ok()) return;
    const Held held(writer);
    warm_locked(writer, wanted, keep, made);
}

}  // namespace pht
