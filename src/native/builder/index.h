// The index of a store as its writer sees it: all records and notes, and writing them.
#pragma once

#include "builder/layout.h"
#include "builder/writer.h"
#include "store/record.h"

namespace pht {

// One name of the index. Texts lie in Index::text, at these offsets.
struct IndexItem {
    enum class Kind : u8 { damaged, record, note };
    Kind kind = Kind::damaged;
    bool durable = false;  // of a record: its copy is known to be on disk
    bool counts = false;   // of a record: durable, or of this boot; of a note: still believed
    bool named = false;    // of a record: it tells of the file that its name stands for
    bool image = false;    // found by what a container image keeps of a file
    size_t name = 0, path = 0, origin = 0, reason = 0, kernel = 0;  // 0: an empty one
    u64 used = 0;  // when, in seconds since the epoch; of a note: when it was written
    u64 bias = 0, object_size = 0;
};

class StoredFile;

class Index {
public:
    // Reads all of it.
    ErrorOr<void> read(const StoreWriter &writer, Boot &boot);
    // Reads one name of it.
    ErrorOr<void> read_one(const StoreWriter &writer, const char *name, Boot &boot);

    const MappedArray<IndexItem> &items() const { return items_; }
    const char *text(size_t at) const { return text_.data() + at; }
    const char *name(const IndexItem &item) const { return text(item.name); }
    const char *path(const IndexItem &item) const { return text(item.path); }

    // Whether a record other than the one named so has this copy.
    bool has_copy(const char *path, const char *but) const;

private:
    void clear();
    bool add(const StoreWriter &writer, const char *name, StoredFile &stored, Boot &boot);
    size_t keep(Str text);

    MappedArray<IndexItem> items_;
    MappedArray<char> text_;
    bool memory_ = true;
};

// A record or a note, read into a buffer of its own.
class StoredFile : NonCopyable {
public:
    StoredFile() : buffer_(static_cast<u8 *>(map_memory(kRecordLimit))) {}
    ~StoredFile() {
        if (buffer_) unmap_memory(buffer_, kRecordLimit);
    }

    // Neither a record nor a note where it cannot be read, or is not what was written.
    void read(int index, const char *name);
    bool is_record() const { return record_.head != nullptr; }
    bool is_note() const { return note_.kernel.data != nullptr; }
    const RecordView &record() const { return record_; }
    const NoteView &note() const { return note_; }
    const sys::FileIdentity &file() const { return file_; }
    u8 *data() { return buffer_; }

private:
    u8 *buffer_;
    RecordView record_;
    NoteView note_;
    sys::FileIdentity file_;
};

// Whether a path in a record leads to a copy: objects/<name>/<basename>.
bool is_copy_path(Str path);

// What a record is made of.
struct RecordParts {
    sys::FileIdentity file;  // of the original
    u64 bias = 0;
    bool durable = false;  // the copy is on disk for good,
    bool synced = false;   // and so will be the record
    bool proven = false;   // the copy was seen to be written back
    const Layout *layout = nullptr;
    Str path, origin;
    const u8 *header = nullptr;   // the first layout->header_size bytes of the copy
    const u8 *present = nullptr;  // as in a record, and so are these
    u64 lacking = 0, rests_until = 0, refused_by = 0;
};
Trouble write_record(const StoreWriter &writer, const KeyText &key, const RecordParts &parts,
                     Boot &boot);

// Until when nothing is added to an entry, where that failed: for a day, or for a minute (`brief`).
u64 rest_until(bool brief);

// Writes a record once more: as one whose copy is on disk; and, as it was changed in place, as one
// that rests, or whose original this kernel refused to take.
Trouble write_as_durable(const StoreWriter &writer, const char *name, StoredFile &stored);
Trouble write_resting(const StoreWriter &writer, const char *name, StoredFile &stored, bool brief);
Trouble write_refused(const StoreWriter &writer, const char *name, StoredFile &stored);

// Remembers that an entry could not be made, so that the next start does not try: for a day, or for
// a minute what may pass (`brief`). A record that counts stays, and rests that long.
void write_note(const StoreWriter &writer, const KeyText &key, Str origin, Str reason, bool brief,
                Boot &boot);

}  // namespace pht
