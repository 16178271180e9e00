#include "elf/object.h"

#include "kernel/strings.h"

namespace pht {

namespace {

u32 word(const u8 *at) {
    u32 value;
    copy(&value, at, sizeof value);
    return value;
}

bool property_wants_bti(const u8 *at, u64 size) {
    while (size >= 8) {
        const u64 length = word(at + 4);
        const u64 step = 8 + round_up(length, 8);
        if (length > size - 8) return false;
        if (word(at) == GNU_PROPERTY_AARCH64_FEATURE_1_AND && length >= 4)
            return (word(at + 8) & GNU_PROPERTY_AARCH64_FEATURE_1_BTI) != 0;
        if (step >= size) return false;
        at += step;
        size -= step;
    }
    return false;
}

}  // namespace

void read_notes(const u8 *at, u64 size, u64 alignment, ElfNotes *out) {
    const u8 *const begin = at;
    if (alignment != 8) alignment = 4;
    while (size >= 12) {
        const u64 name_size = word(at), value_size = word(at + 4);
        const u32 type = word(at + 8);
        const u64 value_at = round_up(12 + name_size, alignment);
        if (name_size > size || value_size > size || value_at + value_size > size) return;
        const u8 *value = at + value_at;
        if (name_size == 4 && compare(at + 12, "GNU", 4) == 0) {
            if (type == NT_GNU_BUILD_ID && value_size <= sizeof out->build_id.bytes) {
                out->build_id.size = static_cast<u8>(value_size);
                copy(out->build_id.bytes, value, value_size);
                out->build_id_at = static_cast<u64>(value - begin);
                out->found = true;
            } else if (type == NT_GNU_PROPERTY_TYPE_0) {
#if defined(__aarch64__)
                out->bti = property_wants_bti(value, value_size);
#else
                (void)property_wants_bti;
#endif
            }
        }
        const u64 step = round_up(value_at + value_size, alignment);
        if (step >= size) return;
        at += step;
        size -= step;
    }
}

template <class Memory>
bool read_segments(u64 load_bias, const Elf64_Phdr *headers, size_t count,
                   Array<Segment, Memory> *out, u64 *low, u64 *high) {
    *low = ~0ull;
    *high = 0;
    for (size_t i = 0; i < count; ++i) {
        const Elf64_Phdr &header = headers[i];
        if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
        const u64 at = load_bias + header.p_vaddr;
        const Segment segment = {round_down(at, kPageSize),
                                 round_up(at + header.p_memsz, kPageSize),
                                 (header.p_flags & PF_W) != 0, (header.p_flags & PF_X) != 0};
        if (!out->push(segment)) return false;
        *low = min(*low, segment.start);
        *high = max(*high, segment.end);
    }
    if (out->empty()) *low = 0;
    return true;
}
template bool read_segments<Mapped>(u64, const Elf64_Phdr *, size_t, Array<Segment, Mapped> *,
                                    u64 *, u64 *);

bool read_segments(u64 load_bias, const Elf64_Phdr *headers, size_t count, bool is_main,
                   Object *out) {
    out->load_bias = load_bias;
    out->headers = reinterpret_cast<u64>(headers);
    out->is_main = is_main;
    return read_segments(load_bias, headers, count, &out->segments, &out->low, &out->high);
}

bool read_object(u64 load_bias, const Elf64_Phdr *headers, size_t count, bool is_main,
                 Object *out) {
    if (!read_segments(load_bias, headers, count, is_main, out)) return false;
    ElfNotes notes;
    for (size_t i = 0; i < count; ++i) {
        const Elf64_Phdr &header = headers[i];
        if (header.p_type != PT_NOTE) continue;
        const u64 at = load_bias + header.p_vaddr;
        // Only notes inside a loaded segment are in memory at all.
        for (const Segment &segment : out->segments) {
            if (at < segment.start || at >= segment.end || header.p_memsz > segment.end - at)
                continue;
            read_notes(reinterpret_cast<const u8 *>(at), header.p_memsz, header.p_align, &notes);
            break;
        }
    }
    out->build_id = notes.build_id;
    out->bti = notes.bti;
    return true;
}

bool may_be_coverable(u64 load_bias, const Elf64_Phdr *headers, size_t count) {
    // The span without its writable parts is an upper bound of the run; two 2 MiB boundaries
    // inside the whole span are needed for a page, or one less where gaps can be taken in.
    u64 low = ~0ull, high = 0;
    bool executable = false;
    for (size_t i = 0; i < count; ++i) {
        const Elf64_Phdr &header = headers[i];
        if (header.p_type != PT_LOAD) continue;
        const u64 at = load_bias + header.p_vaddr;
        low = min(low, round_down(at, kPageSize));
        high = max(high, round_up(at + header.p_memsz, kPageSize));
        executable = executable || (header.p_flags & PF_X);
    }
    return executable && high > low &&
           round_down(high, kHugeSize) >= round_up(low, kHugeSize) + kHugeSize;
}

}  // namespace pht
