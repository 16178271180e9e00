// Where in the copy what is loaded lies, and what the steps of laying it out share.
#pragma once

#include "builder/elf_file.h"

namespace pht {

// 2 MiB pages that will be mapped huge, by address in memory: virtual address + the load bias
// modulo 2 MiB, which is never below 0.
struct Run {
    u64 start, end;
};

// Where in the copy the bytes of each address are: in the order of addresses, congruent to them
// modulo 2 MiB, with less than 2 MiB left free between.
class Offsets {
public:
    bool make(const ElfFile &file, const MappedArray<Run> &runs, u64 bias);  // false: no memory

    // The offset of an address in memory, or of a virtual address, that is loaded from the file.
    u64 of_memory(u64 address) const;
    u64 of(u64 address) const { return of_memory(address + bias_); }
    // An offset to name for what takes no room in the file, wherever it claims to be.
    u64 near(u64 address) const;

    u64 end() const { return end_; }
    // Where the original's ELF header is loaded at a 2 MiB boundary it stays there, edited; else
    // the copy's own header goes in front of the first loaded byte.
    bool in_place() const { return in_place_; }

private:
    struct Part {
        u64 start, offset;  // address in memory, offset in the copy
    };
    const Part &find(u64 address) const;

    MappedArray<Part> parts_;
    u64 bias_ = 0, end_ = 0;
    bool in_place_ = false;
};

// Bytes of the copy that are used so.
struct Shown {
    u64 at, length;
    Use use;
};

// What the steps work on, one after the other; `end` is that of the copy so far.
struct Draft {
    const ElfFile &file;
    const MappedArray<Run> &runs;
    const Offsets &offsets;
    u64 bias;
    Layout *out;
    u64 end = 0;
    MappedArray<Shown> shown = {};  // what the copy is used for but being mapped

    // The size beyond which no copy is made.
    u64 limit() const { return 2 * file.size() + (64ul << 20); }
    // Puts bytes of the original that are not loaded at the end, aligned so. False: no memory.
    bool append_piece(u64 origin, u64 length, u64 alignment, Use use = kUseTools) {
        const u64 at = round_up(end, alignment);
        end = at + length;
        return show(at, length, use) && out->pieces.push({at, origin, length});
    }
    bool show(u64 at, u64 length, Use use) { return shown.push({at, length, use}); }
    bool add_patch(u64 at, const void *bytes, size_t size) const {
        return out->patches.push({at, out->bytes.size(), size}) &&
               out->bytes.append(static_cast<const u8 *>(bytes), size);
    }
};

// The program headers of the copy, as many as before and the others at their old positions: who
// keeps a pointer to one finds it unchanged. `table` is where they will be.
LaidOut describe_segments(Draft &draft, u64 table, MappedArray<Elf64_Phdr> *headers);

// The section headers of the copy go to its end, *at, behind the sections that are not loaded; none
// where the original's are unusable: then *at is 0.
LaidOut describe_sections(Draft &draft, u64 *at);

}  // namespace pht
