// A loaded ELF object as the dynamic linker knows it, reduced to what planning needs.
#pragma once

#include <elf.h>

#include "kernel/memory.h"

namespace pht {

// A PT_LOAD at its place in memory, rounded to pages.
struct Segment {
    u64 start, end;
    bool writable, executable;
};

struct BuildId {
    u8 size = 0;
    u8 bytes[32] = {};
};

struct Object {
    u64 load_bias = 0;
    u64 low = 0, high = 0;  // the span of all PT_LOADs, rounded to pages
    u64 headers = 0;        // where its program headers lie, tells two objects at one place apart
    bool is_main = false;   // the executable: never unloaded
    bool bti = false;       // aarch64: text is mapped with PROT_BTI
    BuildId build_id;
    Array<Segment> segments;
};

// Takes the segments from program headers, and their span. Returns false when memory ran out.
template <class Memory>
bool read_segments(u64 load_bias, const Elf64_Phdr *headers, size_t count,
                   Array<Segment, Memory> *out, u64 *low, u64 *high);
bool read_segments(u64 load_bias, const Elf64_Phdr *headers, size_t count, bool is_main,
                   Object *out);

// What the notes of an object say of it. Of several build-ids the last one counts.
struct ElfNotes {
    BuildId build_id;
    u64 build_id_at = 0;  // where its bytes are, from the begin of the PT_NOTE that holds it
    bool found = false;   // a build-id, even an empty one; for who reads several PT_NOTEs
    bool bti = false;
};

// Takes build-id and properties from the bytes of a PT_NOTE.
void read_notes(const u8 *at, u64 size, u64 alignment, ElfNotes *out);

// Reads the program headers and notes of an object in memory. Must be called while the object
// cannot go away (inside dl_iterate_phdr). Returns false when memory ran out.
bool read_object(u64 load_bias, const Elf64_Phdr *headers, size_t count, bool is_main, Object *out);

// Cheap test for the import path: could any 2 MiB page of this object's read-only run hold text?
bool may_be_coverable(u64 load_bias, const Elf64_Phdr *headers, size_t count);

}  // namespace pht
