#include "builder/layout.h"

#include "builder/offsets.h"
#include "builder/sort.h"
#include "elf/plan.h"

namespace pht {

namespace {

constexpr u64 kMostHeaders = 4096;  // bytes at the start of the copy that its record repeats

// The runs of 2 MiB pages that the core would plan if nothing were mapped but this object: at least
// what it plans where it finds other mappings around.
LaidOut find_runs(const ElfFile &file, u64 bias, MappedArray<Run> *runs) {
    bool program = false;
    const LaidOut read = file.find_program(&program);
    if (!read.ok()) return read;

    const Elf64_Phdr *headers = file.headers().data();
    const size_t count = file.headers().size();
    MappedArray<Segment> segments;
    MappedArray<PlainMapping> mappings;
    MappedArray<Extent> extents;
    u64 low, high;
    const MappedFile mapped = {1, 0, 0};  // any that no anonymous mapping has
    if (!read_segments(bias, headers, count, &segments, &low, &high) ||
        !add_loaded(bias, headers, count, mapped, low, high, &mappings))
        return fail(Error{ENOMEM});
    const Outline outline = {segments.data(), segments.size(), low, high, program, mapped};
    if (!find_extents(outline, mappings.data(), mappings.size(), &extents))
        return fail(Error{ENOMEM});

    bool memory = true;
    each_text_page(extents.data(), extents.size(), false, [&](u64 start, u64, bool coverable) {
        if (!coverable || !memory) return;
        if (!runs->empty() && (*runs)[runs->size() - 1].end == start)
            (*runs)[runs->size() - 1].end += kHugeSize;
        else
            memory = runs->push({start, start + kHugeSize});
    });
    if (!memory) return fail(Error{ENOMEM});
    return runs->empty() ? refuse("has no 2 MiB page of read-only content with text") : LaidOut{};
}

// The bytes that each segment loads.
bool add_pieces(Draft &draft) {
    for (const Load &load : draft.file.loads()) {
        if (load.filesz() == 0) continue;
        u64 start = load.offset, end = load.offset + load.filesz();
        u64 address = load.start;
        if (!load.writable() && load.file_end == load.end) {
            // Whole pages are mapped: what lies before and behind in the file is seen in memory
            // too.
            start = round_down(start, kPageSize);
            end = min(round_up(end, kPageSize), draft.file.size());
            address = round_down(address, kPageSize);
        }
        if (!draft.out->pieces.push({draft.offsets.of(address), start, end - start})) return false;
    }
    return true;
}

bool add_ranges(Draft &draft) {
    for (const Run &run : draft.runs)
        if (!draft.out->ranges.push(
                {run.start - draft.bias, run.end - run.start, draft.offsets.of_memory(run.start)}))
            return false;
    return true;
}

// What each chunk of the copy is for. Without section headers nobody knows what tools read of it.
bool find_uses(Draft &draft, u64 table, u64 table_size, bool sections) {
    Layout *out = draft.out;
    if (!draft.show(0, sizeof(Elf64_Ehdr), kUseHead) || !draft.show(table, table_size, kUseHead) ||
        !draft.show(out->build_id_at, out->build_id.size, kUseHead) ||
        (!sections && !draft.show(0, out->size, kUseTools)) ||
        !out->uses.resize(round_up(out->size, kHugeSize) / kHugeSize))
        return false;
    for (const Range &range : out->ranges)
        if (!draft.show(range.offset, range.length, kUseText)) return false;
    for (const Shown &shown : draft.shown) {
        const u64 end = min(shown.at + shown.length, out->size);
        for (u64 at = round_down(shown.at, kHugeSize); at < end; at += kHugeSize)
            out->uses[at / kHugeSize] = static_cast<u8>(out->uses[at / kHugeSize] | shown.use);
    }
    return true;
}

// Everything behind the places of what is loaded: the headers, and what only they refer to.
LaidOut finish(Draft &draft) {
    const ElfFile &file = draft.file;
    Layout *out = draft.out;
    Elf64_Ehdr head = file.head();
    const u64 table_size = head.e_phnum * sizeof(Elf64_Phdr);
    draft.end = draft.offsets.end();
    u64 table;
    const Load *holder = file.find_part(head.e_phoff, table_size);
    if (holder && draft.offsets.in_place()) {
        // The process may see it too: it keeps the object's span.
        table = draft.offsets.of(holder->start) + (head.e_phoff - holder->offset);
    } else {
        table = round_up(draft.end, 8);
        draft.end = table + table_size;
    }
    MappedArray<Elf64_Phdr> headers;
    LaidOut done = describe_segments(draft, table, &headers);
    if (!done.ok()) return done;
    u64 sections = 0;
    done = describe_sections(draft, &sections);
    if (!done.ok()) return done;

    head.e_phoff = table;
    head.e_shoff = sections;
    head.e_ehsize = sizeof head;
    if (!sections) head.e_shentsize = head.e_shnum = head.e_shstrndx = 0;
    if (!draft.add_patch(0, &head, sizeof head) ||
        !draft.add_patch(table, headers.data(), table_size))
        return fail(Error{ENOMEM});
    const u64 header_size = table + table_size;
    out->header_size = static_cast<u32>(header_size > kMostHeaders ? sizeof head : header_size);
    out->size = round_up(draft.end, kPageSize);
    if (out->size > draft.limit()) return refuse("has parts that overlap or lie too far apart");
    if (!find_uses(draft, table, table_size, sections != 0)) return fail(Error{ENOMEM});
    sort(out->pieces.data(), out->pieces.size(), [](const CopyPiece &a, const CopyPiece &b) {
        if (a.at != b.at) return a.at < b.at;
        return a.origin != b.origin ? a.origin < b.origin : a.length < b.length;
    });
    return {};
}

}  // namespace

LaidOut lay_out(int fd, u64 size, u64 bias, Layout *out) {
    bias %= kHugeSize;
    ElfFile file(fd, size);
    LaidOut done = file.read_head();
    if (!done.ok()) return done;
    if (size > kMostBytes) return refuse("has parts that overlap or lie too far apart");
    MappedArray<Run> runs;
    done = find_runs(file, bias, &runs);
    if (!done.ok()) return done;
    Offsets offsets;
    if (!offsets.make(file, runs, bias)) return fail(Error{ENOMEM});
    Draft draft = {file, runs, offsets, bias, out};
    if (!add_ranges(draft) || !add_pieces(draft)) return fail(Error{ENOMEM});
    u64 address = 0;
    done = file.find_build_id(&out->build_id, &address);
    if (!done.ok()) return done;
    if (out->build_id.size) out->build_id_at = offsets.of(address);
    return finish(draft);
}

}  // namespace pht
