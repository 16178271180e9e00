// An entry while it is made: the copy.
#pragma once

#include "builder/copy.h"
#include "builder/entry.h"

namespace pht {

// Whether all of a copy is on disk; unknown before Linux 6.5.
enum class Clean : u8 { unknown, no, yes };

// One entry while it is made.
struct Making {
    const StoreWriter &writer;
    const Wanted &wanted;
    bool durable;
    const Keep &keep;
    Deadline &deadline;
    Boot &boot;
    Added *added;
    int source = -1;
    sys::FileIdentity file = {};
    Layout layout = {};
    Buffer<128> name = {};
    StoredFile own = {};                       // the record that the file has
    MappedArray<u8> header = {};               // the first bytes of the copy
    size_t urgent = 0;                         // of the order
    MappedArray<u32> order = {};               // the chunks that are wanted
    MappedArray<u8> present = {}, fresh = {};  // what is there; of it, what no record told of
    Trouble stopped = {};       // why nothing more could be added to a copy that is there
    bool known = false;         // of its own record: what it names is on disk
    Clean settled = Clean::no;  // what was in the copy before anything was added is on disk, too
    bool proven = false;
    bool on_disk = false;        // the copy is, though nothing was done for it now
    Buffer<256> differing = {};  // the object of its own record, where that is none of this file's

    Str base() const { return basename(str(wanted.path)); }
    Buffer<160> numbered(int number) const {
        Buffer<160> out;
        out.add(name.data).add("-").add_decimal(static_cast<u64>(number));
        return out;
    }
    void found(const char *object) const {
        added->path.size = 0;
        added->path.add("objects/").add(object).add("/").add(base());
    }
    // Begins with a copy of which nothing is known.
    bool forget() {
        present.clear();
        fresh.clear();
        return present.resize(bitmap_size(layout.size)) && fresh.resize(bitmap_size(layout.size));
    }
    // Room for what is wanted now, of a copy at this path if it is there.
    Need need(const char *stays) const {
        // Somebody who prepares a store asks for all of it.
        Need out = {0, 0, stays, !deadline.with_rest || writer.spec().evicts_used};
        for (size_t i = 0; i < (deadline.with_rest ? order.size() : urgent); ++i) {
            const u64 size = layout.chunk_size(order[i]);
            out.whole += size;
            if (!has_bit(present.data(), order[i])) out.more += size;
        }
        return out;
    }

    Trouble begin();
    bool is_own_good();
    Trouble make();
    Trouble add_chunks(CopyFile &copy, int directory, bool *differs);
    Trouble write_chunk(CopyFile &copy, int directory, u32 chunk);
    Trouble take(const char *object, bool *taken, bool is_own);
    void recall(int target, bool seen);
    Trouble keep_known(const char *object, int target);
    Trouble prove(const char *object, int target, bool seen);
    Trouble settle(const char *object, int target, const sys::FileIdentity &copied);
    bool is_on_disk() const;
    Trouble find_same(bool *taken);
    bool has_no_record(const char *path) const;
    Trouble write_object();
    Trouble write_into(int directory);
    Trouble finish();
    Trouble write_image_record(RecordParts *parts);
    void drop_superseded();
};

inline Trouble no_memory() {
    return failed_call("mmap", Error{ENOMEM});
}

// Syncs a directory, or says why it could not be opened.
inline ErrorOr<void> sync_directory(const Descriptor &directory) {
    if (!directory.ok()) return Error(directory);
    return sys::sync(directory);
}

}  // namespace pht
