// Objects of another process: their files' heads, and the plan which that process made of them.
// It is neither stopped nor read: /proc/PID/maps and the ELF files say enough.
#pragma once

#include "elf/plan.h"

namespace pht {

// What an ELF file says of itself at its beginning, but for the program headers, which go to the
// caller's memory.
struct ElfHead {
    bool fixed = false;  // ET_EXEC: its load bias is 0
    size_t count = 0;    // of program headers
    BuildId build_id;
};

// How a file of another process is found.
enum class Way : u8 {
    link,    // the kernel's own link to it: exe, map_files/START-END
    inside,  // a path, looked up below the directory as if that were the root
    cached,  // the same, only with what the kernel has at hand: no file system makes us wait
};

// As many program headers as execve(2) takes.
inline constexpr size_t kMostHeaders = 65536 / sizeof(Elf64_Phdr);

// Opens with O_PATH, which has no effect on what it opens, be it a FIFO or a device.
ErrorOr<int> open_elsewhere(int directory, const char *name, Way way);

// Reads the head of the file behind an O_PATH descriptor, provided that it is a regular file and
// the one that maps names by device and inode: else file_gone. Status::unsupported for what is no
// ELF object of this machine. `headers` has room for kMostHeaders. Needs no lock.
Outcome read_head(int path_fd, u32 dev_major, u32 dev_minor, u64 inode, Elf64_Phdr *headers,
                  ElfHead *out);

// A mapping of another process; `swapped` where its engine put it over the original one.
struct ProcessMapping {
    PlainMapping plain;
    bool swapped;
};

struct ProcessObject {
    u64 load_bias;
    const Elf64_Phdr *headers;
    size_t count;
    bool is_main;
    u32 dev_major, dev_minor;  // of the original file, as in maps
    u64 inode;
    Backing backing;
    BuildId build_id;
    const ProcessMapping *mappings;  // sorted, those in its 2 MiB pages
    size_t mapping_count;
};

// Plans the object from the mappings as they were before the swap, and marks the pages that are
// swapped now. Returns false when memory ran out.
bool plan_elsewhere(const ProcessObject &object, Region *out);

}  // namespace pht
