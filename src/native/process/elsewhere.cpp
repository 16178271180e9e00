#include "process/elsewhere.h"

#include "kernel/descriptor.h"
#include "kernel/scratch.h"

namespace pht {

namespace {

constexpr size_t kNotesLimit = 4096;

#if defined(__aarch64__)
constexpr u16 kMachine = EM_AARCH64;
#else
constexpr u16 kMachine = EM_X86_64;
#endif

// Reads exactly that much, or says why not: a file that ends before is no ELF object.
Outcome read_all(int fd, void *to, size_t size, u64 offset) {
    if (offset > 1ull << 62) return {Status::unsupported, Call::none, 0};
    const auto got = sys::read_at(fd, to, size, offset);
    if (!got.ok()) return refused(Call::read, got);
    return got.value() == size ? done() : Outcome{Status::unsupported, Call::none, 0};
}

// Whether the segments are such as a loader maps. Somebody else wrote them: sums must not wrap, and
// a plan of the whole address space is no plan.
bool loadable(const Elf64_Phdr *headers, size_t count) {
    constexpr u64 kAddresses = 1ull << 47, kLargest = 1ull << 36;
    u64 low = ~0ull, high = 0;
    for (size_t i = 0; i < count; ++i) {
        const Elf64_Phdr &header = headers[i];
        if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
        if (header.p_vaddr > kAddresses || header.p_memsz > kAddresses ||
            header.p_filesz > header.p_memsz || header.p_offset > kAddresses ||
            (header.p_vaddr - header.p_offset) % kPageSize != 0)
            return false;
        low = min(low, header.p_vaddr);
        high = max(high, header.p_vaddr + header.p_memsz);
    }
    return low < high && high - low <= kLargest;
}

// The build-id as the dynamic linker's view of the object gives it: of the last note that has one.
void read_build_id(int fd, const Elf64_Phdr *headers, size_t count, BuildId *out) {
    Room<0> room;
    auto *const notes = reinterpret_cast<u8 *>(room.take(kNotesLimit));
    if (!notes) return;
    ElfNotes found;
    for (size_t i = 0; i < count; ++i) {
        const Elf64_Phdr &header = headers[i];
        if (header.p_type != PT_NOTE) continue;
        const size_t size = min(header.p_filesz, static_cast<u64>(kNotesLimit));
        if (read_all(fd, notes, size, header.p_offset).ok())
            read_notes(notes, size, header.p_align, &found);
    }
    *out = found.build_id;
}

void mark_swapped(const ProcessObject &object, Region *region) {
    size_t m = 0;
    for (size_t i = 0; i < region->pages.size(); ++i) {
        const u64 start = region->address_of(i), end = start + kHugeSize;
        while (m < object.mapping_count && object.mappings[m].plain.end <= start) ++m;
        if (m == object.mapping_count) return;
        const ProcessMapping &mapping = object.mappings[m];
        if (!mapping.swapped || mapping.plain.start > start || mapping.plain.end < end) continue;
        HugePage &page = region->pages[i];
        // What was swapped could be, whatever we make of it.
        if (page.state == HugePage::State::unusable) region->coverable_bytes += page.text;
        page.state = HugePage::State::huge;
        page.outcome = done();
    }
}

}  // namespace

ErrorOr<int> open_elsewhere(int directory, const char *name, Way way) {
    if (way == Way::link) return sys::open_at(directory, name, O_PATH);
    return sys::open_inside(
        directory, name, O_PATH,
        RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT | (way == Way::cached ? RESOLVE_CACHED : 0));
}

Outcome read_head(int path_fd, u32 dev_major, u32 dev_minor, u64 inode, Elf64_Phdr *headers,
                  ElfHead *out) {
    sys::FileIdentity file;
    const auto result = sys::identify_cached(path_fd, &file);
    if (!result.ok()) return refused(Call::statx, result);
    if ((file.mode & S_IFMT) != S_IFREG) return {Status::file_gone, Call::none, 0};
    Buffer<40> link;
    link.add("/proc/self/fd/").add_decimal(static_cast<u64>(path_fd));
    const Descriptor fd(sys::open_at(AT_FDCWD, link.data, O_RDONLY | O_NONBLOCK));
    if (!fd.ok()) return refused(Call::open, fd);
    const bool same =
        file.inode == inode && file.dev_major == dev_major && file.dev_minor == dev_minor;
    if (!same && !is_mapped_file(fd, dev_major, dev_minor, inode))
        return {Status::file_gone, Call::none, 0};

    Elf64_Ehdr header = {};
    Outcome outcome = read_all(fd, &header, sizeof header, 0);
    if (!outcome.ok()) return outcome;
    constexpr u8 kIdent[] = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB};
    if (compare(header.e_ident, kIdent, sizeof kIdent) != 0 || header.e_machine != kMachine ||
        (header.e_type != ET_DYN && header.e_type != ET_EXEC) ||
        header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
        header.e_phnum > kMostHeaders)
        return {Status::unsupported, Call::none, 0};
    outcome = read_all(fd, headers, header.e_phnum * sizeof(Elf64_Phdr), header.e_phoff);
    if (!outcome.ok()) return outcome;
    if (!loadable(headers, header.e_phnum)) return {Status::unsupported, Call::none, 0};
    out->fixed = header.e_type == ET_EXEC;
    out->count = header.e_phnum;
    read_build_id(fd, headers, out->count, &out->build_id);
    return done();
}

bool plan_elsewhere(const ProcessObject &object, Region *out) {
    if (!read_segments(object.load_bias, object.headers, object.count, object.is_main,
                       &out->object))
        return false;
    out->object.build_id = object.build_id;
    const MappedFile file = {object.inode, object.dev_major, object.dev_minor};
    Array<PlainMapping> originals;
    for (size_t i = 0; i < object.mapping_count; ++i) {
        const ProcessMapping &mapping = object.mappings[i];
        // The place of a swapped mapping is filled with what the loader had put there.
        const bool added = mapping.swapped
                               ? add_loaded(object.load_bias, object.headers, object.count, file,
                                            mapping.plain.start, mapping.plain.end, &originals)
                               : originals.push(mapping.plain);
        if (!added) return false;
    }
    if (!plan(*out, originals, false)) return false;
    mark_swapped(object, out);
    if (out->any_huge()) {
        out->backing = object.backing;
        out->outcome = out->any_small() ? Outcome{} : done();
    }
    return true;
}

}  // namespace pht
