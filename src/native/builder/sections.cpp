#include "builder/offsets.h"
#include "builder/sort.h"

namespace pht {

namespace {

constexpr u64 kMostSections = 65536;
constexpr u64 kSmallSection = 64ul * 1024;  // what is no larger is no debug information to wait for

// A section that is not loaded: its offset in the original and its index.
struct Trailing {
    u64 offset;
    size_t index;
};

// The alignment, or 1 where it is no power of two or absurd.
u64 power(u64 alignment) {
    return alignment && alignment <= kHugeSize && !(alignment & (alignment - 1)) ? alignment : 1;
}

// How many section headers there are; 0 where they are unusable.
LaidOut count_sections(const ElfFile &file, u64 *count) {
    const Elf64_Ehdr &head = file.head();
    *count = 0;
    if (head.e_shoff == 0 || head.e_shoff >= file.size()) return {};
    u64 found = head.e_shnum;
    if (!found) {  // more than the header can tell
        Elf64_Shdr first = {};
        const auto got = file.read(&first, sizeof first, head.e_shoff);
        if (!got.ok()) return fail(got);
        if (got.value() == sizeof first) found = first.sh_size;
    }
    if (head.e_shentsize == sizeof(Elf64_Shdr) && found <= kMostSections) *count = found;
    return {};
}

// Whether tools read a section that is loaded: of the program's own content what describes its
// frames, and neither its text nor its data.
bool is_for_tools(const ElfFile &file, const Elf64_Shdr &section, u64 names) {
    constexpr u32 kRelative = 19;  // SHT_RELR, which older headers do not know
    switch (section.sh_type) {
        case SHT_REL:
        case SHT_RELA:
        case kRelative:
        case SHT_INIT_ARRAY:
        case SHT_FINI_ARRAY:
        case SHT_PREINIT_ARRAY:
            return false;
        case SHT_PROGBITS:
            break;
        default:
            return true;
    }
    constexpr const char *kFrames = ".eh_frame";
    char name[16] = {};
    const auto got = file.read(name, length(kFrames), names + section.sh_name);
    return !got.ok() || starts_with({name, length(kFrames)}, str(kFrames));
}

// Which section has the names of all; there is at least one.
u64 find_names_index(const ElfFile &file, const Elf64_Shdr *sections) {
    const u64 which = file.head().e_shstrndx;
    return which == SHN_XINDEX ? sections[0].sh_link : which;
}

// Where the names of sections are in the original; 0 where that cannot be told.
u64 find_names(const ElfFile &file, const Elf64_Shdr *sections, u64 count) {
    const u64 which = find_names_index(file, sections);
    const u64 at = which < count ? sections[which].sh_offset : 0;
    return at < file.size() ? at : 0;
}

// Moves the headers of what is loaded and lists what is not. False where one points behind the
// file; then none of them is kept.
bool place_sections(Draft &draft, Elf64_Shdr *sections, u64 count, MappedArray<Trailing> *trailing,
                    bool *memory) {
    const ElfFile &file = draft.file;
    const u64 names = find_names(file, sections, count);
    for (size_t i = 0; i < count; ++i) {
        Elf64_Shdr &section = sections[i];
        if (section.sh_type == SHT_NULL) continue;
        const bool allocated = (section.sh_flags & SHF_ALLOC) != 0;
        const Load *load = allocated ? file.find_loaded(section.sh_addr, section.sh_size) : nullptr;
        if (section.sh_type == SHT_NOBITS || section.sh_size == 0) {
            section.sh_offset = allocated ? draft.offsets.near(section.sh_addr) : draft.end;
        } else if (load && section.sh_offset - load->offset == section.sh_addr - load->start) {
            section.sh_offset = draft.offsets.of(section.sh_addr);
            *memory = !is_for_tools(file, section, names) ||
                      draft.show(section.sh_offset, section.sh_size, kUseTools);
            if (!*memory) return false;
        } else if (section.sh_size > file.size() ||
                   section.sh_offset > file.size() - section.sh_size) {
            return false;
        } else if (!trailing->push({section.sh_offset, i})) {
            *memory = false;
            return false;
        }
    }
    return true;
}

}  // namespace

LaidOut describe_sections(Draft &draft, u64 *at) {
    const ElfFile &file = draft.file;
    MappedArray<u8> &bytes = draft.out->bytes;
    u64 count;
    const LaidOut counted = count_sections(file, &count);
    if (!counted.ok() || count == 0) return counted;
    const size_t from = bytes.size(), length = count * sizeof(Elf64_Shdr);
    if (!bytes.resize(from + length)) return fail(Error{ENOMEM});
    const auto got = file.read(bytes.data() + from, length, file.head().e_shoff);
    if (!got.ok()) return fail(got);
    auto *sections = reinterpret_cast<Elf64_Shdr *>(bytes.data() + from);
    MappedArray<Trailing> trailing;
    bool memory = true;
    if (got.value() != length || !place_sections(draft, sections, count, &trailing, &memory)) {
        if (!memory || !bytes.resize(from)) return fail(Error{ENOMEM});
        return {};
    }

    sort(trailing.data(), trailing.size(), [](const Trailing &a, const Trailing &b) {
        return a.offset != b.offset ? a.offset < b.offset : a.index < b.index;
    });
    const u64 limit = draft.end + file.size() + (64ul << 20);
    for (const Trailing &entry : trailing) {
        Elf64_Shdr &section = sections[entry.index];
        const bool large = section.sh_size > kSmallSection;
        const bool names = entry.index == find_names_index(file, sections);
        const Use other = section.sh_type == SHT_PROGBITS && large ? kUseDebug : kUseTools;
        if (!draft.append_piece(section.sh_offset, section.sh_size, power(section.sh_addralign),
                                names ? kUseHead : other))
            return fail(Error{ENOMEM});
        section.sh_offset = draft.end - section.sh_size;
        if (draft.end > limit) return refuse("has sections that overlap");
    }
    *at = round_up(draft.end, 8);
    draft.end = *at + length;
    if (!draft.show(*at, length, kUseHead)) return fail(Error{ENOMEM});
    return draft.out->patches.push({*at, from, length}) ? LaidOut{} : fail(Error{ENOMEM});
}

}  // namespace pht
