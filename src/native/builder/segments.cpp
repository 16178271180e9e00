#include "builder/offsets.h"

namespace pht {

namespace {

struct Text {
    u64 start, end;  // addresses in memory, as of a Run
};

Elf64_Phdr moved(const Elf64_Phdr &header, u64 offset) {
    Elf64_Phdr out = header;
    const u64 apart = offset > header.p_vaddr ? offset - header.p_vaddr : header.p_vaddr - offset;
    if (header.p_type == PT_LOAD && header.p_align > 1 && apart % header.p_align != 0)
        out.p_align = kPageSize;
    out.p_offset = offset;
    return out;
}

// All addresses in memory. The virtual one is two's complement: a program's page may begin below 0.
Elf64_Phdr loaded(const Draft &draft, u32 flags, u64 start, u64 file_stop, u64 memory_end,
                  u64 align) {
    Elf64_Phdr out = {};
    out.p_type = PT_LOAD;
    out.p_flags = flags;
    out.p_offset = draft.offsets.of_memory(start);
    out.p_vaddr = out.p_paddr = start - draft.bias;
    out.p_filesz = file_stop - start;
    out.p_memsz = memory_end - start;
    out.p_align = align;
    return out;
}

// The runs, extended by what reaches over their borders of the text in them, at the end as far as
// the object goes. The first begins where its mapping will, were it in front of the object.
bool merge_texts(const Draft &draft, MappedArray<Text> *out) {
    const MappedArray<Load> &loads = draft.file.loads();
    const u64 bias = draft.bias;
    const u64 high = round_up(loads[loads.size() - 1].end, kPageSize) + bias;
    for (const Run &run : draft.runs) {
        Text text = {run.start, min(run.end, high)};
        for (const Load &load : loads) {
            if (!load.executable() || load.writable() || load.start + bias >= run.end ||
                load.file_end + bias <= run.start)
                continue;
            if (!out->empty()) text.start = min(text.start, load.start + bias);
            text.end = max(text.end, load.file_end + bias);
        }
        if (!out->empty() && text.start < (*out)[out->size() - 1].end) {
            // The same text reaches into both.
            Text &last = (*out)[out->size() - 1];
            last.end = max(last.end, text.end);
        } else if (!out->push(text)) {
            return false;
        }
    }
    return true;
}

// Adds what is left of a segment beside the merged texts, the first of `out`; what lies before them
// all to `heads`.
bool add_rest(const Draft &draft, const Load &load, const MappedArray<Text> &texts,
              MappedArray<Elf64_Phdr> *out, MappedArray<Elf64_Phdr> *heads) {
    const u64 first = texts[0].start, load_end = load.end + draft.bias;
    const u64 load_start = load.start + draft.bias, file_end = load.file_end + draft.bias;
    const Elf64_Phdr whole =
        moved(draft.file.headers()[load.header], draft.offsets.of_memory(load_start));
    if (load_end <= first) return heads->push(whole);
    if (load_start < first &&
        !heads->push(loaded(draft, load.flags, load_start, first, first, kPageSize)))
        return false;
    u64 start = max(load_start, first), end = file_end;
    for (const Text &text : texts) {
        if (text.start <= start && start < text.end)
            start = min(text.end, end);
        else if (start < text.start && text.start < end)
            end = text.start;
    }
    // What is behind the file's part stays with the last of it.
    const u64 memory = end == file_end ? load_end : end;
    if (start == load_start && end == file_end) return out->push(whole);
    if (start < end) return out->push(loaded(draft, load.flags, start, end, memory, kPageSize));
    if (start < memory) {
        for (size_t i = 0; i < texts.size(); ++i) {
            Elf64_Phdr &text = (*out)[i];
            const u64 text_start = texts[i].start;
            if (text_start < start && start - text_start <= text.p_filesz)
                text.p_memsz = max<u64>(text.p_memsz, memory - text_start);
        }
    }
    return true;
}

// The loaded segments as they will be mapped: each run belongs to one `R E` segment, together with
// the text that reaches out of it. What lies before the first run stays the original's, and goes to
// `heads`, to be told of behind all others: tools take the first segment of the table for what lies
// where the first mapping of the copy begins, but look for the dynamic section's addresses in all
// of them. Without the latter no more than there were: each of them holds text of its own, and of a
// segment without text at most the tail goes.
bool merge(const Draft &draft, MappedArray<Elf64_Phdr> *out, MappedArray<Elf64_Phdr> *heads) {
    MappedArray<Text> texts;
    if (!merge_texts(draft, &texts)) return false;
    for (const Text &text : texts) {
        const u64 shift = draft.offsets.of_memory(text.start) - (text.start - draft.bias);
        const u64 align = shift % kHugeSize ? kPageSize : kHugeSize;
        if (!out->push(loaded(draft, PF_R | PF_X, text.start, text.end, text.end, align)))
            return false;
    }
    for (const Load &load : draft.file.loads())
        if (!add_rest(draft, load, texts, out, heads)) return false;
    // By insertion: they are few, and equal ones must keep their order.
    for (size_t i = 1; i < out->size(); ++i) {
        const Elf64_Phdr header = (*out)[i];
        const auto behind = [&](const Elf64_Phdr &other) {
            return other.p_vaddr + draft.bias > header.p_vaddr + draft.bias;
        };
        size_t at = i;
        for (; at > 0 && behind((*out)[at - 1]); --at) (*out)[at] = (*out)[at - 1];
        (*out)[at] = header;
    }
    return true;
}

// The other program headers: moved with what they refer to. *out is an empty one.
LaidOut describe_other(Draft &draft, const Elf64_Phdr &header, u64 table, Elf64_Phdr *out) {
    const ElfFile &file = draft.file;
    if (header.p_type == PT_PHDR) {
        // Says where the table is loaded, if it is.
        if (table != draft.offsets.of(header.p_vaddr)) return {};
        *out = header;
        out->p_offset = table;
        return {};
    }
    *out = header;
    if (header.p_type == PT_NULL || header.p_type == PT_GNU_STACK ||
        (header.p_vaddr | header.p_offset | header.p_filesz) == 0)
        return {};
    if (header.p_filesz == 0) {
        out->p_offset = draft.offsets.near(header.p_vaddr);
    } else if (file.find_loaded(header.p_vaddr, header.p_filesz)) {
        out->p_offset = draft.offsets.of(header.p_vaddr);
        const bool read = header.p_type != PT_GNU_RELRO && header.p_type != PT_TLS;
        if (read && !draft.show(out->p_offset, header.p_filesz, kUseTools))
            return fail(Error{ENOMEM});
    } else if (header.p_filesz <= file.size() && header.p_offset <= file.size() - header.p_filesz) {
        if (!draft.append_piece(header.p_offset, header.p_filesz, 8)) return fail(Error{ENOMEM});
        out->p_offset = draft.end - header.p_filesz;
        // Too large is too large, and must not wrap: the whole copy is refused in the end.
        draft.end = min(draft.end, draft.limit() + kPageSize);
    } else {
        return refuse("is truncated: a program header points behind the file");
    }
    return {};
}

}  // namespace

LaidOut describe_segments(Draft &draft, u64 table, MappedArray<Elf64_Phdr> *headers) {
    MappedArray<Elf64_Phdr> loads, heads;
    if (!merge(draft, &loads, &heads)) return fail(Error{ENOMEM});
    // As where a segment without bytes in the file begins in the last page of a text: no linker
    // does.
    for (size_t i = 1; i < loads.size(); ++i)
        if (loads[i].p_vaddr + draft.bias <
            loads[i - 1].p_vaddr + draft.bias + loads[i - 1].p_memsz)
            return refuse("has segments that overlap once they are merged");
    size_t slots = 0;
    for (const Elf64_Phdr &header : draft.file.headers()) slots += header.p_type == PT_LOAD;
    if (loads.size() > slots)
        return refuse("has a segment layout that needs more program headers than it has");
    // Of text that reaches into the first run from before nobody needs to be told.
    for (size_t i = 0; i < heads.size() && loads.size() < slots; ++i)
        if (!loads.push(heads[i])) return fail(Error{ENOMEM});
    Elf64_Phdr unused = {};
    unused.p_type = PT_NULL;
    unused.p_align = 8;
    size_t next = 0;
    for (const Elf64_Phdr &header : draft.file.headers()) {
        Elf64_Phdr described = unused;
        if (header.p_type != PT_LOAD) {
            const LaidOut done = describe_other(draft, header, table, &described);
            if (!done.ok()) return done;
        } else if (next < loads.size()) {
            described = loads[next++];
        }
        if (!headers->push(described)) return fail(Error{ENOMEM});
    }
    return {};
}

}  // namespace pht
