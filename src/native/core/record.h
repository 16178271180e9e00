// The records of the store's index: which entry belongs to which original, and what is in it.
#pragma once

#include "region.h"
#include "sys.h"
#include "text.h"

namespace pht {

// The fixed part of a record; the Python side writes the same with struct "<8sII..." (record.py).
struct Record {
    char magic[8];  // kRecordMagic
    u32 size, crc;  // of the whole record; CRC-32 of all behind this field
    u32 dev_major, dev_minor;
    u64 inode, file_size;
    u64 mtime, ctime;  // seconds, as two's complement
    u32 mtime_ns, ctime_ns;
    u64 bias;        // load bias modulo 2 MiB
    u8 boot_id[16];  // zero: the copy is on disk; else: valid during that boot only
    u64 object_size;
    u64 build_id_at;  // file offset of the build-id's bytes in the copy; 0: has none
    u32 build_id_size, header_size;
    u32 range_count, path_size;
    // Behind it: range_count x Range; path_size bytes: the path relative to v1, a NUL and, for
    // people, the original's path and another NUL; header_size bytes, the first of the copy.
};
struct Range {
    u64 address;  // virtual address in the ELF file, less the load bias
    u64 length, offset;
};
// In place of a record: an entry could not be made on this kernel. The kernel's release, the reason
// and the original's path follow, each ended by a newline. Believed for a day.
inline constexpr char kNoteMagic[8] = {'P', 'H', 'T', 'N', 'O', 'N', 'E', '\n'};
inline constexpr char kRecordMagic[8] = {'P', 'H', 'T', 'R', 'E', 'C', '1', '\n'};
inline constexpr size_t kRecordLimit = 16ul * 1024;

// Nearly all are smaller than what is on the stack.
using RecordRoom = Room<1536>;

// A record in memory, its parts checked against its size.
struct RecordView {
    const Record *head = nullptr;
    const Range *ranges = nullptr;
    const char *path = nullptr;
    const u8 *header = nullptr;

    // Where in the copy a stretch lies: nullptr unless one range holds all of it.
    const Range *find(u64 address, u64 length) const;
};

// Which boot this is; read when it is first asked for.
struct Boot {
    bool known = false;
    u8 id[16] = {};
};

// Reads and checks the record of a file, into `room` (a fresh one), which *record refers to.
// Outcome no_entry when there is none; stale or damaged when writing it anew mends it; unbuildable
// when a note stands in its place. That it was used is noted, for eviction.
Outcome find_record(int index, const sys::FileIdentity &file, u64 bias, Boot &boot,
                    RecordRoom &room, RecordView *record);
// The same by what a container image keeps of a file.
Outcome find_image_record(int index, const sys::FileIdentity &file, const BuildId &id, u64 bias,
                          Boot &boot, RecordRoom &room, RecordView *record);

}  // namespace pht
