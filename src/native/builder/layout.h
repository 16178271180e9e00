// Laying out a huge-page-ready copy of an ELF object; see elf(5). Reads the original with pread(2)
// only: a file that shrinks meanwhile gives short reads and no signal.
//
// Every byte of the copy lies at a file offset congruent to its run-time address modulo 2 MiB, and
// the program headers describe the mapping as it will be after the swap: the merged read-only run
// is one `R E` segment, what is left of it `R`.
#pragma once

#include "elf/object.h"
#include "store/record.h"

namespace pht {

// Bytes of the original at their place in the copy.
struct CopyPiece {
    u64 at, origin, length;  // offset in the copy, offset in the original, bytes
};

// Bytes [from, from + size) of Layout::bytes go over the copy at `at`, the later over the earlier.
struct Patch {
    u64 at;
    size_t from, size;
};

// What a 2 MiB chunk of a copy is for: one or several of these. The rest of the loaded data, which
// nobody maps and no tool reads, is left out of it.
enum Use : u8 {
    kNoUse = 0,
    kUseHead = 1,   // the headers and the build-id, by which it is known; section headers
    kUseText = 2,   // it can be mapped huge
    kUseTools = 4,  // symbols, strings, unwind tables, notes
    kUseDebug = 8,  // what debuggers take from the original
};

struct Layout {
    MappedArray<CopyPiece> pieces;  // sorted by `at`; what lies between them is zero
    MappedArray<Patch> patches;
    MappedArray<u8> bytes;
    // What can be mapped huge: virtual address as two's complement (the page of a program may begin
    // below its address 0), length, offset in the copy.
    MappedArray<Range> ranges;
    u64 size = 0;
    u64 build_id_at = 0;  // of its bytes in the copy; 0: there is none
    u32 header_size = 0;  // of the first bytes of the copy, which its record repeats
    BuildId build_id;
    MappedArray<u8> uses;  // of each chunk

    u64 chunk_size(size_t chunk) const { return min(kHugeSize, size - chunk * kHugeSize); }
};

// How it went. `refused` says what is wrong with the file, as the end of a sentence about it;
// `error` is the errno of reading it, or ENOMEM.
struct LaidOut {
    const char *refused = nullptr;
    u16 error = 0;
    bool ok() const { return !refused && !error; }
};

// Lays out a copy of the ELF file of `size` bytes behind `fd`, for load biases congruent to `bias`
// modulo 2 MiB. Needs no lock: its memory is mappings of its own. On failure nothing of *out
// counts.
LaidOut lay_out(int fd, u64 size, u64 bias, Layout *out);

}  // namespace pht
