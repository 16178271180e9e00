// The records of the store's index: which entry belongs to which original, and what is in it.
#pragma once

#include "elf/region.h"
#include "kernel/strings.h"
#include "kernel/sys.h"

namespace pht {

// The fixed part of a record.
struct Record {
    char magic[8];  // kRecordMagic
    u32 size, crc;  // of the whole record; CRC-32 of all behind this field
    u32 dev_major, dev_minor;
    u64 inode, file_size;
    u64 mtime, ctime;  // seconds, as two's complement
    u32 mtime_ns, ctime_ns;
    u64 bias;        // load bias modulo 2 MiB
    u8 boot_id[16];  // zero: the copy is on disk; else: valid during that boot only
    u8 made_in[16];  // the boot in which it was made
    u64 object_size;
    u64 lacking;      // 2 MiB of the copy that are to be there, and are not yet
    u64 rests_until;  // wall clock, seconds: nothing is added before, since that failed
    u64 refused_by;   // the kernel that could not take the original itself; 0: none was asked
    u64 build_id_at;  // file offset of the build-id's bytes in the copy; 0: has none
    u32 build_id_size, header_size;
    u32 range_count, path_size;
    // Behind it: range_count x Range; path_size bytes: the path relative to v1, a NUL and, for
    // people, the original's path and another NUL; header_size bytes, the first of the copy;
    // bitmap_size(object_size) bytes: which 2 MiB of the copy are there, a bit each, from the
    // lowest one of the first byte on. What is not there is a hole, or what a killed builder left,
    // and is never mapped.
};
inline constexpr size_t bitmap_size(u64 object_size) {
    return (round_up(object_size, kHugeSize) / kHugeSize + 7) / 8;
}
inline bool has_bit(const u8 *bitmap, u64 at) {
    return bitmap[at / 8] >> at % 8 & 1;
}
inline void clear_bit(u8 *bitmap, u64 at) {
    bitmap[at / 8] = static_cast<u8>(bitmap[at / 8] & ~(1 << at % 8));
}
inline void set_bit(u8 *bitmap, u64 at) {
    bitmap[at / 8] = static_cast<u8>(bitmap[at / 8] | 1 << at % 8);
}

struct Range {
    u64 address;  // virtual address in the ELF file, less the load bias
    u64 length, offset;
};
// In place of a record: an entry could not be made on this kernel. The kernel's release, the reason
// and the original's path follow, each ended by a newline. Believed for a day.
inline constexpr char kNoteMagic[8] = {'P', 'H', 'T', 'N', 'O', 'N', 'E', '\n'};
inline constexpr char kRecordMagic[8] = {'P', 'H', 'T', 'R', 'E', 'C', '5', '\n'};
inline constexpr size_t kRecordLimit = 16ul * 1024;

// How long a note is believed, an entry that was used stays, and how often use is noted.
inline constexpr u64 kDay = 24ul * 60 * 60;  // seconds

// Nearly all are smaller than what is on the stack.
using RecordRoom = Room<1536>;

// A record in memory, its parts checked against its size.
struct RecordView {
    const Record *head = nullptr;
    const Range *ranges = nullptr;
    const char *path = nullptr;
    const u8 *header = nullptr;
    const u8 *present = nullptr;
    bool proven = false;  // its copy was seen to be written back; see written.h

    bool durable() const;  // the copy is known to be on disk
    Str origin() const;    // where the original was when the copy was made; for people only
    // Where in the copy a stretch lies: nullptr unless one range holds all of it.
    const Range *find(u64 address, u64 length) const;
    // Whether the 2 MiB of the copy that begin at this offset are there.
    bool has(u64 offset) const {
        return offset < head->object_size && has_bit(present, offset / kHugeSize);
    }
    // Whether something may be added to the copy, as far as is known. A clock that was ahead makes
    // nothing rest.
    bool may_grow() const {
        const u64 now = head->rests_until ? sys::wall_seconds() : 0;
        return now >= head->rests_until || head->rests_until - now > kDay;
    }
    bool is_growing() const { return head->lacking > 0; }
    // Whether all of the text is there.
    bool has_all() const {
        bool all = true;
        for (u32 i = 0; i < head->range_count && all; ++i)
            for (u64 at = 0; at < ranges[i].length && all; at += kHugeSize)
                all = has(ranges[i].offset + at);
        return all;
    }
};

// The parts of a record in memory, checked against its size and its checksum.
bool view_record(const u8 *data, size_t size, RecordView *out);

// Puts size and checksum into a record that is otherwise complete.
void seal_record(u8 *data, size_t size);

// A note in memory, its parts.
struct NoteView {
    Str kernel, reason, origin;
};
bool view_note(const u8 *data, size_t size, NoteView *out);

// Which kernel this is, by its release and how it was built; never 0.
u64 this_kernel();

// Which boot this is; read when it is first asked for.
struct Boot {
    bool known = false;
    u8 id[16] = {};

    Outcome read();  // see random(4)
};

// Whether a record counts now: of what was written during another boot and is not known to be on
// disk nothing may be executed, whatever a power cut left of it.
Outcome check_boot(const Record &head, Boot &boot);

// The name of the record of a file: what the kernel knows it by, and where it is loaded.
using KeyText = Buffer<192>;
KeyText record_key(const sys::FileIdentity &file, u64 bias);
// Whether a record tells of the original that a key was asked for.
bool is_record_of(const Record &head, const sys::FileIdentity &file, u64 bias);

// A file of a container image: inode, device and change time are new wherever the image is
// unpacked, its content, size and modification time (in seconds, as in a tar) are not.
struct ImageFile {
    int fd;  // it is open
    const sys::FileIdentity &file;
    const BuildId &id;
    Str path;  // as the kernel names it
    u64 bias;
};
// The name of its record: with its build-id or, where it has none, what its basename comes to.
KeyText image_key(const sys::FileIdentity &file, const BuildId &id, Str path, u64 bias);
// What that begins with, whatever the content.
KeyText image_key_front(const sys::FileIdentity &file);

// CRC-32 as in gzip.
u32 crc32(const u8 *data, size_t size);

// Reads and checks the record of a file, into `room` (a fresh one), which *record refers to.
// Outcome no_entry when there is none; stale or damaged when writing it anew mends it; unbuildable
// when a note stands in its place. That it was used is noted, for eviction.
Outcome find_record(int index, const sys::FileIdentity &file, u64 bias, Boot &boot,
                    RecordRoom &room, RecordView *record);
// The same by what a container image keeps of a file.
struct ImageMatch {
    // It is the very file that the record was made from, and was not changed since. Else it may be,
    // and its bytes have to be compared.
    bool same = false;
    // Where they are the record's: whether that is known from then on, once the record has a later
    // change time.
    bool can_be_known = false;
    KeyText name = {};
    sys::FileIdentity record = {};  // the file of that name
};
Outcome find_image_record(int index, const ImageFile &image, Boot &boot, RecordRoom &room,
                          RecordView *record, ImageMatch *match);

}  // namespace pht
