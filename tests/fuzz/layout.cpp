// Mutated ELF files, laid out, and what every layout must be.
//
// An input is a header (Head below) and pieces of a file: 8 bytes where, 2 bytes how many, and the
// bytes. The rest of the file is zero, so that a file of many megabytes is a short input.

#include "builder/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <random>
#include <vector>

#include "check.h"

using pht::kHugeSize;
using pht::kPageSize;
using pht::u16;
using pht::u32;
using pht::u64;
using pht::u8;

namespace {

struct Head {
    u8 bias, short_reads, error_after, shrink_after;
    u8 unused[4];
    u64 size;
};
constexpr u64 kMostBytes = 1ull << 30;
constexpr u64 kBiases[] = {0, 0x1000, 0x155000, 0x1ff000};

// The file of this input.
struct Source {
    struct Part {
        u64 offset;
        const u8 *data;
        size_t size;
    };
    Part parts[2048];  // of which an input has room for fewer
    size_t part_count = 0;
    u64 size = 0, bias = 0;
    Head head = {};
    unsigned reads = 0;

    bool parse(const u8 *data, size_t count) {
        part_count = 0;
        reads = 0;
        if (count < sizeof head) return false;
        memcpy(&head, data, sizeof head);
        size = head.size % kMostBytes;
        bias = kBiases[head.bias % 4];
        for (size_t at = sizeof head; at + 10 <= count;) {
            u64 offset;
            u16 length;
            memcpy(&offset, data + at, 8);
            memcpy(&length, data + at + 8, 2);
            at += 10;
            const size_t here = std::min<size_t>(length, count - at);
            CHECK(part_count < std::size(parts));
            parts[part_count++] = {offset % kMostBytes, data + at, here};
            at += here;
        }
        return true;
    }
    void read(u8 *to, u64 length, u64 offset) const {
        memset(to, 0, length);
        for (size_t i = 0; i < part_count; ++i) {
            const Part &part = parts[i];
            const u64 start = std::max(part.offset, offset);
            const u64 end = std::min(part.offset + part.size, offset + length);
            if (start < end)
                memcpy(to + (start - offset), part.data + (start - part.offset), end - start);
        }
    }
    bool faulty() const { return head.error_after || head.shrink_after; }
};
Source source;

// Bytes of the copy, as whoever writes it puts them there.
void read_copy(const pht::Layout &layout, u8 *to, u64 length, u64 offset) {
    memset(to, 0, length);
    const u64 stop = offset + length;
    for (const pht::CopyPiece &piece : layout.pieces) {
        const u64 start = std::max(piece.at, offset), end = std::min(piece.at + piece.length, stop);
        if (start < end)
            source.read(to + (start - offset), end - start, piece.origin + (start - piece.at));
    }
    for (const pht::Patch &patch : layout.patches) {
        const u64 start = std::max(patch.at, offset), end = std::min(patch.at + patch.size, stop);
        if (start < end)
            memcpy(to + (start - offset), layout.bytes.data() + patch.from + (start - patch.at),
                   end - start);
    }
}

using Headers = std::vector<Elf64_Phdr>;

template <class Read> Headers read_loads(Read read) {
    Elf64_Ehdr head;
    read(reinterpret_cast<u8 *>(&head), sizeof head, 0);
    Headers all(head.e_phnum), loads;
    read(reinterpret_cast<u8 *>(all.data()), all.size() * sizeof(Elf64_Phdr), head.e_phoff);
    for (const Elf64_Phdr &header : all)
        if (header.p_type == PT_LOAD && header.p_memsz) loads.push_back(header);
    return loads;
}

void check_parts(const pht::Layout &layout) {
    CHECK(layout.size > 0 && layout.size <= 2 * source.size + (64 << 20));
    CHECK(layout.size % kPageSize == 0);
    u64 end = 0;
    for (const pht::CopyPiece &piece : layout.pieces) {
        CHECK(piece.at >= end && piece.length <= layout.size);
        CHECK(piece.origin <= source.size && piece.length <= source.size - piece.origin);
        end = piece.at + piece.length;
    }
    CHECK(end <= layout.size);
    for (const pht::Patch &patch : layout.patches) {
        CHECK(patch.at <= layout.size && patch.size <= layout.size - patch.at);
        CHECK(patch.from <= layout.bytes.size() && patch.size <= layout.bytes.size() - patch.from);
    }
    CHECK(layout.header_size >= 64 && layout.header_size <= 4096);
    CHECK(layout.build_id.size <= 32 && layout.build_id_at <= layout.size - layout.build_id.size);
    CHECK((layout.build_id_at != 0) == (layout.build_id.size != 0));
}

// The ranges, page by page of 4 KiB: what is free or readable from the file, with text.
void check_ranges(const pht::Layout &layout, const Headers &loads) {
    const u64 low = pht::round_down(loads.front().p_vaddr, kPageSize);
    const u64 high = pht::round_up(loads.back().p_vaddr + loads.back().p_memsz, kPageSize);
    const bool model = high - low <= 16 << 20;
    enum Kind : u8 { kFree, kContent, kText, kOther };
    std::vector<Kind> kinds(model ? (high - low) / kPageSize : 0, kFree);
    for (const Elf64_Phdr &load : loads) {
        const u64 file_end = pht::round_up(load.p_vaddr + load.p_filesz, kPageSize);
        const u64 end = pht::round_up(load.p_vaddr + load.p_memsz, kPageSize);
        for (u64 at = pht::round_down(load.p_vaddr, kPageSize); model && at < end;
             at += kPageSize) {
            const bool content = at < file_end && (load.p_flags & PF_R) && !(load.p_flags & PF_W);
            kinds[(at - low) / kPageSize] = !content              ? kOther
                                            : load.p_flags & PF_X ? kText
                                                                  : kContent;
        }
    }
    u64 end = 0;  // in memory
    for (const pht::Range &range : layout.ranges) {
        const u64 start = range.address + source.bias;
        CHECK(start >= end && range.length > 0);
        end = start + range.length;
        CHECK(start % kHugeSize == 0 && range.length % kHugeSize == 0);
        CHECK(range.offset % kHugeSize == 0 && range.offset + range.length <= layout.size);
        for (const Elf64_Phdr &load : loads) {
            const u64 from = pht::round_down(load.p_vaddr, kPageSize) + source.bias;
            const u64 to = pht::round_up(load.p_vaddr + load.p_memsz, kPageSize) + source.bias;
            CHECK(!(load.p_flags & PF_W) || to <= start || from >= end);
        }
    }
    // As a page of a program may reach over its ends, which the file alone does not tell here, only
    // pages inside are held against the model.
    for (u64 page = pht::round_up(low + source.bias, kHugeSize);
         model && page + kHugeSize <= high + source.bias; page += kHugeSize) {
        bool text = false, other = false;
        for (u64 at = page; at < page + kHugeSize; at += kPageSize) {
            const Kind kind = kinds[(at - source.bias - low) / kPageSize];
            text = text || kind == kText;
            other = other || kind == kOther;
        }
        const bool planned =
            std::any_of(layout.ranges.begin(), layout.ranges.end(), [&](const pht::Range &range) {
                const u64 start = range.address + source.bias;
                return start <= page && page < start + range.length;
            });
        CHECK(planned == (text && !other));
    }
}

void check_headers(const pht::Layout &layout, const Headers &old, Headers now) {
    // Tools take the first for what lies where the first mapping of the copy begins; it may be in
    // front of the object, and what is in front of it comes last.
    const pht::Range &first = layout.ranges[0];
    CHECK(!now.empty() && now[0].p_vaddr == first.address && now[0].p_offset == first.offset);
    std::stable_sort(now.begin(), now.end(), [](const Elf64_Phdr &a, const Elf64_Phdr &b) {
        return a.p_vaddr + source.bias < b.p_vaddr + source.bias;
    });
    u64 end = 0;
    for (const Elf64_Phdr &load : now) {
        const u64 start = load.p_vaddr + source.bias;
        CHECK(start >= end);
        end = start + load.p_memsz;
        CHECK((load.p_offset - load.p_vaddr - source.bias) % kHugeSize == 0);
        CHECK(load.p_filesz <= load.p_memsz);
        CHECK(load.p_offset <= layout.size && load.p_filesz <= layout.size - load.p_offset);
    }
    for (const pht::Range &range : layout.ranges) {
        size_t inside = 0;
        for (const Elf64_Phdr &load : now) {
            const u64 from = load.p_vaddr + source.bias, to = from + load.p_memsz;
            const u64 start = range.address + source.bias, stop = start + range.length;
            if (to <= start || from >= stop) continue;
            ++inside;
            CHECK(load.p_flags == (PF_R | PF_X));
            CHECK(load.p_offset - load.p_vaddr == range.offset - range.address);
        }
        CHECK(inside == 1);
    }
    // The first and the last byte of each segment are where the new headers say, which need not
    // tell of text in front of the first.
    for (const Elf64_Phdr &load : old) {
        for (const u64 at : {u64{0}, load.p_filesz - 1}) {
            if (!load.p_filesz) break;
            const u64 address = load.p_vaddr + at;
            bool found = address + source.bias < first.address + source.bias;
            for (const Elf64_Phdr &header : now) {
                if (address - header.p_vaddr >= header.p_filesz) continue;
                const u64 place = header.p_offset + (address - header.p_vaddr);
                for (const pht::CopyPiece &piece : layout.pieces)
                    found = found || (piece.at <= place && place - piece.at < piece.length &&
                                      piece.origin + (place - piece.at) == load.p_offset + at);
                break;
            }
            CHECK(found);
        }
    }
}

}  // namespace

namespace pht::sys {

long simulated(long number, long fd, long to, long size, long offset, long, long) {
    CHECK(number == __NR_pread64 && fd == 7 && size > 0 && offset >= 0);
    ++source.reads;
    if (source.head.error_after && source.reads > source.head.error_after) return -EIO;
    if (source.head.short_reads && source.reads % 3 == 0) return -EINTR;
    const bool shrunk = source.head.shrink_after && source.reads > source.head.shrink_after;
    const u64 end = shrunk ? source.size / 2 : source.size, at = static_cast<u64>(offset);
    u64 length = at < end ? std::min(static_cast<u64>(size), end - at) : 0;
    if (source.head.short_reads) length = std::min<u64>(length, 4096);
    source.read(reinterpret_cast<u8 *>(to), length, at);
    return static_cast<long>(length);
}

}  // namespace pht::sys

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    if (!source.parse(data, size)) return 0;
    pht::Layout layout;
    const pht::LaidOut done = pht::lay_out(7, source.size, source.bias, &layout);
    CHECK(!done.error || (done.error == EIO && source.head.error_after && !done.refused));
    CHECK(!done.refused || strlen(done.refused) > 5);
    if (!done.ok()) return 0;
    check_parts(layout);
    if (source.faulty()) return 0;
    const Headers old = read_loads([](u8 *to, u64 n, u64 at) { source.read(to, n, at); });
    const Headers now = read_loads([&](u8 *to, u64 n, u64 at) { read_copy(layout, to, n, at); });
    check_ranges(layout, old);
    check_headers(layout, old, now);
    return 0;
}

extern "C" size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t most);

// Every other time a number of the file becomes one that may be its limit, or moves a little.
extern "C" size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t most, unsigned seed) {
    std::minstd_rand random(seed);
    if (random() % 2 || size < 16) return LLVMFuzzerMutate(data, size, most);
    constexpr u64 kNumbers[] = {0,
                                1,
                                2,
                                4,
                                5,
                                6,
                                56,
                                64,
                                4096,
                                0x1ff000,
                                1u << 20,
                                kHugeSize,
                                1u << 26,
                                1ull << 31,
                                1ull << 32,
                                1ull << 47,
                                (1ull << 47) - 4096,
                                1ull << 60,
                                1ull << 62,
                                1ull << 63,
                                ~0ull,
                                ~0xfffull};
    constexpr u64 kSteps[] = {1, 8, 56, 64, 4096, 0x10000, kHugeSize};
    for (unsigned i = 0; i <= random() % 3; ++i) {
        const size_t width = size_t{1} << random() % 4;
        size_t at = random() % (size - width + 1);
        if (random() % 4) at -= std::min(at, at % 2);
        u64 number = 0;
        memcpy(&number, data + at, width);
        switch (random() % 4) {
            case 0:
                number = kNumbers[random() % std::size(kNumbers)];
                break;
            case 1:
                number += kSteps[random() % std::size(kSteps)];
                break;
            case 2:
                number -= kSteps[random() % std::size(kSteps)];
                break;
            default: {
                // A number from elsewhere: two that are the same, or lie close together, are what
                // the checks of overlaps are about.
                const size_t from = random() % (size - width + 1);
                memcpy(&number, data + from, width);
            }
        }
        memcpy(data + at, &number, width);
    }
    return size;
}
