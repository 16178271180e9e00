// An ELF file as somebody else wrote it, checked as far as laying out a copy relies on it.
#pragma once

#include "builder/layout.h"

namespace pht {

// No segment lies beyond, no file we lay out is larger: sums of a few such numbers never wrap.
inline constexpr u64 kMostAddresses = 1ull << 47, kMostBytes = 1ull << 60;

inline constexpr size_t kMostNotes = 1ul << 20;  // bytes in one segment; the dynamic section's too

constexpr LaidOut refuse(const char *reason) {
    return {reason, 0};
}
constexpr LaidOut fail(Error error) {
    return {nullptr, error.number};
}

// A PT_LOAD with its virtual addresses. Those of one file ascend and share no page.
struct Load {
    u64 start, file_end, end;  // file_end: behind what comes from the file
    u64 offset;                // in the file; of `start`
    u32 flags;
    u32 header;  // its index

    u64 filesz() const { return file_end - start; }
    bool writable() const { return (flags & PF_W) != 0; }
    bool executable() const { return (flags & PF_X) != 0; }
};

class ElfFile {
public:
    ElfFile(int fd, u64 size) : size_(size), fd_(fd) {}

    LaidOut read_head();

    const Elf64_Ehdr &head() const { return head_; }
    const MappedArray<Elf64_Phdr> &headers() const { return headers_; }
    const MappedArray<Load> &loads() const { return loads_; }  // never empty
    u64 size() const { return size_; }

    // Whether it can be a process's executable: then *program is true.
    LaidOut find_program(bool *program) const;
    // The GNU build-id and its virtual address, as the core finds it in memory: the last one there
    // is.
    LaidOut find_build_id(BuildId *id, u64 *address) const;

    // The segment that loads a part of the file, or a stretch of addresses from the file.
    const Load *find_part(u64 offset, u64 length) const;
    const Load *find_loaded(u64 address, u64 length) const;

    // Reads up to `size` bytes, fewer where the file ends. Returns how many.
    ErrorOr<size_t> read(void *to, size_t size, u64 offset) const {
        return sys::read_at(fd_, to, size, offset);
    }

private:
    LaidOut read_loads();
    LaidOut read_loaded(const Elf64_Phdr &header, MappedArray<u8> *out) const;

    MappedArray<Elf64_Phdr> headers_;
    MappedArray<Load> loads_;
    const u64 size_;
    const int fd_;
    Elf64_Ehdr head_ = {};
};

}  // namespace pht
