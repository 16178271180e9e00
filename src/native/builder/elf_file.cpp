#include "builder/elf_file.h"

namespace pht {

namespace {

constexpr size_t kMostSegments = 128;

}  // namespace

LaidOut ElfFile::read_head() {
    auto got = read(&head_, sizeof head_, 0);
    if (!got.ok()) return fail(got);
    if (got.value() < sizeof head_ || compare(head_.e_ident, ELFMAG, SELFMAG) != 0)
        return refuse("is no ELF file");
    if (head_.e_ident[EI_CLASS] != ELFCLASS64 || head_.e_ident[EI_DATA] != ELFDATA2LSB)
        return refuse("is no 64-bit little-endian ELF file");
    if (head_.e_type != ET_EXEC && head_.e_type != ET_DYN)
        return refuse("is neither an executable nor a shared object");
    const size_t count = head_.e_phnum, length = count * sizeof(Elf64_Phdr);
    if (head_.e_phentsize != sizeof(Elf64_Phdr) || count == 0 || count > kMostSegments ||
        head_.e_phoff < sizeof head_ || length > size_ || head_.e_phoff > size_ - length)
        return refuse("has no usable program headers");
    if (!headers_.resize(count)) return fail(Error{ENOMEM});
    got = read(headers_.data(), length, head_.e_phoff);
    if (!got.ok()) return fail(got);
    if (got.value() != length) return refuse("is truncated in its program headers");
    return read_loads();
}

// Refused where the dynamic linker could not load them, or where two share a page.
LaidOut ElfFile::read_loads() {
    u64 end = 0;
    for (size_t i = 0; i < headers_.size(); ++i) {
        const Elf64_Phdr &header = headers_[i];
        if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
        if (header.p_filesz > header.p_memsz ||
            (header.p_filesz &&
             (header.p_filesz > size_ || header.p_offset > size_ - header.p_filesz)))
            return refuse("is truncated: a segment ends behind the file");
        if (header.p_vaddr >= kMostAddresses || header.p_memsz >= kMostAddresses - header.p_vaddr ||
            (header.p_vaddr - header.p_offset) % kPageSize != 0)
            return refuse("has a segment at an impossible address");
        if (round_down(header.p_vaddr, kPageSize) < end) return refuse("has overlapping segments");
        const Load load = {header.p_vaddr,
                           header.p_vaddr + header.p_filesz,
                           header.p_vaddr + header.p_memsz,
                           header.p_offset,
                           header.p_flags,
                           static_cast<u32>(i)};
        if (!loads_.push(load)) return fail(Error{ENOMEM});
        end = round_up(load.end, kPageSize);
    }
    if (loads_.empty()) return refuse("has nothing to load");
    return {};
}

const Load *ElfFile::find_part(u64 offset, u64 length) const {
    for (const Load &load : loads_)
        if (load.offset <= offset && length <= load.filesz() &&
            offset - load.offset <= load.filesz() - length)
            return &load;
    return nullptr;
}

const Load *ElfFile::find_loaded(u64 address, u64 length) const {
    const Load *found = nullptr;
    for (const Load &load : loads_) {
        if (load.start > address) break;
        found = &load;
    }
    const bool inside = found && address <= found->file_end && length <= found->file_end - address;
    return inside ? found : nullptr;
}

// What a segment that is no PT_LOAD refers to, as it is in memory; nothing where it is not loaded.
LaidOut ElfFile::read_loaded(const Elf64_Phdr &header, MappedArray<u8> *out) const {
    out->clear();
    const Load *load = find_loaded(header.p_vaddr, header.p_memsz);
    if (!load || header.p_memsz == 0 || header.p_memsz > kMostNotes) return {};
    if (!out->resize(header.p_memsz)) return fail(Error{ENOMEM});
    const auto got = read(out->data(), out->size(), load->offset + (header.p_vaddr - load->start));
    if (!got.ok()) return fail(got);
    return out->resize(got.value()) ? LaidOut{} : fail(Error{ENOMEM});
}

LaidOut ElfFile::find_program(bool *program) const {
    *program = head_.e_type == ET_EXEC;
    for (const Elf64_Phdr &header : headers_) *program = *program || header.p_type == PT_INTERP;
    if (*program) return {};
    MappedArray<u8> data;
    for (const Elf64_Phdr &header : headers_) {
        if (header.p_type != PT_DYNAMIC) continue;
        const LaidOut done = read_loaded(header, &data);
        if (!done.ok()) return done;
        const auto *entries = reinterpret_cast<const Elf64_Dyn *>(data.data());
        for (size_t i = 0; i < data.size() / sizeof *entries; ++i) {
            if (entries[i].d_tag != DT_FLAGS_1) continue;
            *program = (entries[i].d_un.d_val & DF_1_PIE) != 0;
            return {};
        }
    }
    return {};
}

LaidOut ElfFile::find_build_id(BuildId *id, u64 *address) const {
    MappedArray<u8> data;
    for (const Elf64_Phdr &header : headers_) {
        if (header.p_type != PT_NOTE) continue;
        const LaidOut done = read_loaded(header, &data);
        if (!done.ok()) return done;
        ElfNotes notes;
        read_notes(data.data(), data.size(), header.p_align, &notes);
        if (!notes.found) continue;
        *id = notes.build_id;
        *address = header.p_vaddr + notes.build_id_at;
    }
    return {};
}

}  // namespace pht
