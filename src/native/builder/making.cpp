#include "builder/making.h"

#include "store/trust.h"
#include "store/written.h"

namespace pht {

namespace {

constexpr int kMostNumbers = 16;  // copies of different content under one name

Clean is_clean(int copy) {
    sys::CachedPages pages;
    if (!sys::count_cached(copy, &pages).ok()) return Clean::unknown;
    return pages.dirty || pages.written_back ? Clean::no : Clean::yes;
}

}  // namespace

// What is wanted, and what there is.
Trouble Making::begin() {
    // Beyond that a write raises SIGXFSZ, which kills where the program does not ignore it.
    const u64 ceiling = sys::resource_limit(RLIMIT_FSIZE, sys::kUnlimited);
    if (layout.size > ceiling) {
        Trouble problem = failed_call("RLIMIT_FSIZE", Error{EFBIG});
        problem.text.size = 0;
        problem.text.add("RLIMIT_FSIZE of ").add_decimal(ceiling);
        problem.text.add(" bytes is too small for its copy");
        return problem;
    }
    if (!own.data() || !header.resize(layout.header_size) || !forget()) return no_memory();
    const auto filled = fill(layout, source, 0, header.size(), header.data());
    if (!filled.ok()) return failed_call("read", filled);
    own.read(writer.index(), added->key.data);
    const u8 *const there = is_own_good() ? own.record().present : nullptr;
    return order_chunks(layout, wanted, there, &order, &urgent) ? Trouble{} : no_memory();
}

// Whether its record is one of this file as it is, for this layout.
bool Making::is_own_good() {
    if (!own.is_record()) return false;
    const RecordView &record = own.record();
    const Record &head = *record.head;
    return is_record_of(head, file, wanted.bias) && head.object_size == layout.size &&
           head.header_size == layout.header_size &&
           compare(record.header, header.data(), header.size()) == 0 &&
           head.range_count == layout.ranges.size() &&
           compare(record.ranges, layout.ranges.data(), layout.ranges.size() * sizeof(Range)) == 0;
}

// Into the open copy, which is made writable for it.
Trouble Making::write_chunk(CopyFile &copy, int directory, u32 chunk) {
    if (!copy.is_writable()) {
        const Trouble problem = make_room(writer, need(added->path.data), keep, boot);
        if (!problem.ok()) return problem;
        auto result = sys::change_mode(copy.target(), writer.spec().copy_mode() | kOwnerWrites);
        if (!result.ok()) return failed_call("fchmod", base(), result);
        Buffer<256> own_name;
        own_name.add(base());
        result = copy.open_at(directory, own_name.data);
        if (!result.ok()) return failed_call("open", base(), result);
    }
    const Trouble problem = copy.write(chunk);
    if (problem.ok()) added->written += layout.chunk_size(chunk);
    return problem;
}

// Adds what is wanted to a copy while there is time. What is there already, and no record of this
// file tells of, is compared: another file's builder wrote it, or one that was killed. *differs:
// then it is none of this file's. Of a copy that is known to be on disk only what is there, too, is
// named; see keep_known().
Trouble Making::add_chunks(CopyFile &copy, int directory, bool *differs) {
    *differs = false;
    const bool careful = known && !durable && !writer.spec().shared_memory;
    bool compared = false;
    for (size_t i = 0; i < order.size(); ++i) {
        const u32 chunk = order[i];
        if (has_bit(present.data(), chunk)) continue;
        const bool head = (layout.uses[chunk] & kUseHead) != 0;
        if (!head && deadline.is_over()) return {};
        if (i >= urgent && !deadline.with_rest) return {};
        const auto blank = copy.is_blank(chunk);
        if (!blank.ok()) return failed_call("lseek", base(), blank);
        const bool named = careful && has_bit(own.record().present, chunk);
        const bool unsettled =
            settled == Clean::no || (settled == Clean::unknown && added->written > 0);
        const bool later = careful && !named && (blank.value() || unsettled);
        if (later && !blank.value()) continue;
        // What is to be proven now must not wait for what would be written now.
        if (careful && settled == Clean::unknown && compared && blank.value()) return {};
        compared = compared || (!head && !blank.value());
        bool same = true;
        const Trouble problem =
            blank.value() ? write_chunk(copy, directory, chunk) : copy.compare(chunk, &same);
        if (!problem.ok()) return problem;
        *differs = !same;
        if (!same) return {};
        if (!later) {
            set_bit(present.data(), chunk);
            set_bit(fresh.data(), chunk);
        }
        deadline.urgent = deadline.urgent || (i < urgent && !head);
        deadline.moved = deadline.moved || !head;
    }
    return {};
}

// Begins with what its own record tells of an open copy. Looked at again is what the core knows a
// copy by, and whether it is in the file at all; all of the text where it was not `seen` on disk.
void Making::recall(int target, bool seen) {
    pht::copy(present.data(), own.record().present, present.size());
    for (const u32 chunk : order) {
        const u8 use = layout.uses[chunk];
        const auto lacks = [&] {
            const auto hole = sys::seek(target, chunk * kHugeSize, SEEK_HOLE);
            return hole.ok() && hole.value() < chunk * kHugeSize + layout.chunk_size(chunk);
        };
        if ((use & kUseHead) || ((use & kUseText) && (!seen || lacks())))
            clear_bit(present.data(), chunk);
    }
}

// An entry that is known to be on disk stays so, and nothing is waited for. What was written to it
// now is named by a later start, which finds it in the file, on disk by then, and compares it.
Trouble Making::keep_known(const char *object, int target) {
    bool more = false;
    for (size_t i = 0; i < present.size(); ++i)
        more = more || (present[i] & ~own.record().present[i]);
    if (more && settled == Clean::unknown) return prove(object, target, true);
    proven = true;
    on_disk = own.record().durable();
    if (added->written || settled == Clean::no) (void)sys::start_writing(target, 0, 0);
    return {};
}

// A copy that is tied to a file anew counts only where it is on disk; by now the kernel has written
// it back, or failed to.
Trouble Making::prove(const char *object, int target, bool seen) {
    const auto result = sys::sync_data(target);
    proven = result.ok();
    on_disk = proven && seen && own.record().durable();
    if (result.ok() || (seen && tells_nothing(result.error()))) return {};
    (void)remove_tree(writer.objects(), object);
    return failed_call("fdatasync", result);
}

// Takes a copy that is there: that of its own record, or one that may be the same. One that nobody
// trusts goes, and so does one that differs and is no other file's.
Trouble Making::take(const char *object, bool *taken, bool is_own) {
    Outcome outcome;
    const Descriptor directory(open_directory(writer.objects(), object, &outcome));
    if (!directory.ok()) {
        // Somebody else's stays where it cannot be removed; the next number is free.
        if (outcome.status == Status::untrusted) (void)remove_tree(writer.objects(), object);
        return {};
    }
    sys::FileIdentity copied;
    Buffer<256> own_name;
    own_name.add(base());
    const Descriptor target(open_file(directory, own_name.data, &copied, &outcome, true));
    if (!target.ok() || (copied.mode & kLost)) {
        // No such file: a copy under another basename.
        if (target.ok() || outcome.status == Status::untrusted)
            (void)remove_tree(writer.objects(), object);
        return {};
    }
    if (!forget()) return no_memory();
    const RecordView &record = own.record();
    // As the core would believe it; else all of its text is compared.
    known = is_own && (record.durable() || record.proven);
    const bool seen =
        known || (is_own && (writer.spec().shared_memory ||
                             check_written(writer.index(), added->key.data, target).ok()));
    if (is_own && copied.size == layout.size) recall(target, seen);
    settled = known ? is_clean(target) : Clean::no;
    if (settled == Clean::yes && !sys::await_written(target).ok()) settled = Clean::no;
    found(object);
    Trouble problem;
    bool differs = copied.size != layout.size;
    if (!differs) {
        CopyFile copy(layout, source);
        copy.use(target);
        problem = add_chunks(copy, directory, &differs);
        // Looked at again, but not new.
        for (size_t i = 0; i < fresh.size() && seen; ++i)
            fresh[i] = static_cast<u8>(fresh[i] & ~record.present[i]);
        if (copy.is_writable()) (void)sys::change_mode(target, writer.spec().copy_mode());
    }
    // What is there serves, and what could be compared is not lost.
    if (problem.lasts()) {
        stopped = problem;
        problem = {};
    }
    if (problem.ok() && !differs) {
        *taken = true;
        if (durable) return settle(object, target, copied);
        if (writer.spec().shared_memory) return {};
        if (known) return keep_known(object, target);
        on_disk = !added->written && is_on_disk();
        if (on_disk) return {};
        // What is young counts while all of it is cached, and is not waited for.
        const bool counts =
            seen ? is_all_cached(target) : is_young(copied) && is_clean(target) != Clean::yes;
        return counts ? Trouble{} : prove(object, target, seen);
    }
    if (differs && !is_own && has_no_record(added->path.data))
        (void)remove_tree(writer.objects(), object);
    added->path.size = 0;
    return problem;
}

// Whether another record says that what is present of the copy is on disk for good: that of the
// same file before its change time was changed (a new link, a new mode), or of another file.
bool Making::is_on_disk() const {
    Index index;
    if (!index.read(writer, boot).ok()) return false;
    for (const IndexItem &item : index.items()) {
        if (item.kind != IndexItem::Kind::record || !item.durable ||
            !equal(str(index.path(item)), str(added->path.data)))
            continue;
        StoredFile stored;
        stored.read(writer.index(), index.name(item));
        bool all = stored.is_record() && stored.record().head->object_size == layout.size;
        for (size_t i = 0; i < present.size() && all; ++i)
            all = !(present[i] & ~stored.record().present[i]);
        if (all) return true;
    }
    return false;
}

// Whether no record but that of this file leads to a copy.
bool Making::has_no_record(const char *path) const {
    Index index;
    return index.read(writer, boot).ok() && !index.has_copy(path, added->key.data);
}

Trouble Making::settle(const char *object, int target, const sys::FileIdentity &copied) {
    auto result = sys::sync(target);
    if (!result.ok()) mark_lost(target, copied);
    const Descriptor names(open_plain_directory(writer.objects(), object));
    if (result.ok()) result = sync_directory(names);
    if (result.ok()) result = sys::sync(writer.objects());
    return result.ok() ? Trouble{} : failed_call("fsync", result);
}

// Looks for a copy of the same content under the same basename.
Trouble Making::find_same(bool *taken) {
    Trouble problem;
    for (int number = 0; number < kMostNumbers && !*taken && problem.ok(); ++number)
        if (!equal(str(numbered(number).data), str(differing.data)))
            problem = take(numbered(number).data, taken, false);
    return problem;
}

Trouble Making::write_into(int directory) {
    Buffer<256> own_name;
    own_name.add(base());
    CopyFile copy(layout, source);
    auto result = copy.create_at(directory, own_name.data);
    if (!result.ok()) return failed_call("open", base(), result);
    result = sys::ftruncate(copy.target(), layout.size);
    if (!result.ok()) return failed_call("ftruncate", base(), result);
    bool differs;
    const Trouble problem = add_chunks(copy, directory, &differs);
    if (!problem.ok()) return problem;
    if (differs) return trouble(Trouble::Kind::io, "this file system has no sparse files");
    result = sys::change_mode(copy.target(), writer.spec().copy_mode());
    if (!result.ok()) return failed_call("fchmod", base(), result);
    if (durable) result = sys::sync(copy.target());
    if (durable && result.ok()) result = sys::sync(directory);
    return result.ok() ? Trouble{} : failed_call("fsync", base(), result);
}

Trouble Making::write_object() {
    known = false;
    if (!forget()) return no_memory();
    Trouble problem = make_room(writer, need(""), keep, boot);
    if (!problem.ok()) return problem;
    Buffer<160> temporary;
    temporary.add_decimal(sys::process_id()).add("-").add(name.data);
    const u32 mode = writer.spec().directory_mode();
    auto result = make_plain_directory(writer.tmp(), temporary.data, mode);
    if (!result.ok()) return failed_call("mkdir", str("v1/tmp"), result);
    {
        const auto opened = open_plain_directory(writer.tmp(), temporary.data);
        const Written directory(opened);
        problem = opened.ok() ? write_into(directory) : failed_call("open", str("v1/tmp"), opened);
    }
    for (int number = 0; problem.ok() && number < kMostNumbers; ++number) {
        sys::FileIdentity there;
        const Buffer<160> object = numbered(number);
        if (sys::identify_at(writer.objects(), object.data, AT_SYMLINK_NOFOLLOW, &there).ok())
            continue;
        result = sys::rename_at(writer.tmp(), temporary.data, writer.objects(), object.data);
        if (result.ok() && durable) result = sys::sync(writer.objects());
        if (!result.ok()) {
            problem = failed_call("rename", str("v1/objects"), result);
            break;
        }
        found(object.data);
        return {};
    }
    (void)remove_tree(writer.tmp(), temporary.data);
    if (!problem.ok()) return problem;
    return trouble(Trouble::Kind::full, "sixteen different files have the same build-id and size");
}

}  // namespace pht
