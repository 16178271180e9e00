#include "elf/symbols.h"

#include "kernel/strings.h"

namespace pht {

namespace {

struct Tables {
    const Elf64_Sym *symbols = nullptr;
    const char *names = nullptr;
    u64 names_size = 0;
    const u32 *gnu_hash = nullptr, *hash = nullptr;

    bool is_function(u32 index, const char *name) const {
        const Elf64_Sym &symbol = symbols[index];
        if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= names_size ||
            ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || ELF64_ST_BIND(symbol.st_info) == STB_LOCAL)
            return false;
        return equal(str(names + symbol.st_name), str(name));
    }
};

// glibc makes addresses of what the dynamic section says, musl and the kernel's own object do not.
template <class T> const T *at(u64 load_bias, u64 value) {
    return reinterpret_cast<const T *>(value < load_bias ? load_bias + value : value);
}

bool read_tables(u64 load_bias, const Elf64_Dyn *dynamic, Tables *out) {
    for (; dynamic->d_tag != DT_NULL; ++dynamic) {
        const u64 value = dynamic->d_un.d_val;
        switch (dynamic->d_tag) {
            case DT_SYMTAB:
                out->symbols = at<Elf64_Sym>(load_bias, value);
                break;
            case DT_STRTAB:
                out->names = at<char>(load_bias, value);
                break;
            case DT_STRSZ:
                out->names_size = value;
                break;
            case DT_GNU_HASH:
                out->gnu_hash = at<u32>(load_bias, value);
                break;
            case DT_HASH:
                out->hash = at<u32>(load_bias, value);
                break;
            default:
                break;
        }
    }
    return out->symbols && out->names;
}

u32 find_by_gnu_hash(const Tables &tables, const char *name) {
    u32 wanted = 5381;
    for (const char *c = name; *c; ++c) wanted = wanted * 33 + static_cast<u8>(*c);
    const u32 *const table = tables.gnu_hash;
    const u32 buckets = table[0], first = table[1], filters = table[2], shift = table[3];
    if (!buckets || !filters) return 0;
    const auto *filter = reinterpret_cast<const u64 *>(table + 4);
    const u64 word = filter[wanted / 64 % filters];
    if (!(word >> wanted % 64 & word >> (wanted >> shift) % 64 & 1)) return 0;
    const auto *bucket = reinterpret_cast<const u32 *>(filter + filters);
    const u32 *const chain = bucket + buckets;
    u32 index = bucket[wanted % buckets];
    if (index < first) return 0;
    for (;; ++index) {
        const u32 hash = chain[index - first];
        if ((hash | 1) == (wanted | 1) && tables.is_function(index, name)) return index;
        if (hash & 1) return 0;  // the last of its bucket
    }
}

u32 find_by_hash(const Tables &tables, const char *name) {
    u32 wanted = 0;
    for (const char *c = name; *c; ++c) {
        wanted = (wanted << 4) + static_cast<u8>(*c);
        const u32 high = wanted & 0xf0000000;
        wanted = (wanted ^ high >> 24) & ~high;
    }
    const u32 buckets = tables.hash[0];
    if (!buckets) return 0;
    const u32 *const bucket = tables.hash + 2, *const chain = bucket + buckets;
    for (u32 index = bucket[wanted % buckets]; index; index = chain[index])
        if (tables.is_function(index, name)) return index;
    return 0;
}

}  // namespace

const Elf64_Dyn *find_dynamic(u64 load_bias, const Elf64_Phdr *headers, size_t count) {
    for (size_t i = 0; i < count; ++i)
        if (headers[i].p_type == PT_DYNAMIC)
            return reinterpret_cast<const Elf64_Dyn *>(load_bias + headers[i].p_vaddr);
    return nullptr;
}

u64 find_symbol(u64 load_bias, const Elf64_Dyn *dynamic, const char *name) {
    Tables tables;
    if (!dynamic || !read_tables(load_bias, dynamic, &tables)) return 0;
    u32 index = 0;
    if (tables.gnu_hash)
        index = find_by_gnu_hash(tables, name);
    else if (tables.hash)
        index = find_by_hash(tables, name);
    return index ? load_bias + tables.symbols[index].st_value : 0;
}

}  // namespace pht
