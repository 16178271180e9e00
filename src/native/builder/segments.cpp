#include "places.h"

namespace pht {

namespace {

struct Text {
    u64 start, end;  // virtual addresses
};

Elf64_Phdr moved(const Elf64_Phdr &header, u64 offset) {
    Elf64_Phdr out = header;
    const u64 apart = offset > header.p_vaddr ? offset - header.p_vaddr : header.p_vaddr - offset;
    if (header.p_type == PT_LOAD && header.p_align > 1 && apart % header.p_align != 0)
        out.p_align = kPageSize;
    out.p_offset = offset;
    return out;
}

Elf64_Phdr loaded(const Draft &draft, u32 flags, u64 start, u64 file_end, u64 end, u64 align) {
    Elf64_Phdr out = {};
    out.p_type = PT_LOAD;
    out.p_flags = flags;
    out.p_offset = draft.places.of(start);
    out.p_vaddr = out.p_paddr = start;
    out.p_filesz = file_end - start;
    out.p_memsz = end - start;
    out.p_align = align;
    return out;
}

// The runs, extended by what reaches over their borders of the text in them; as far as the object
// goes, so that it keeps its span.
bool merge_texts(const Draft &draft, MappedArray<Text> *out) {
    const MappedArray<Load> &loads = draft.file.loads();
    const u64 bias = draft.bias;
    const u64 low = loads[0].start, high = round_up(loads[loads.size() - 1].end, kPageSize);
    for (const Run &run : draft.runs) {
        Text text = {max(run.start, low + bias) - bias, min(run.end, high + bias) - bias};
        for (const Load &load : loads) {
            if (!load.executable() || load.writable() || load.start + bias >= run.end ||
                load.file_end + bias <= run.start)
                continue;
            text.start = min(text.start, load.start);
            text.end = max(text.end, load.file_end);
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

// Adds what is left of a segment beside the merged texts, the first of `out`.
bool add_rest(const Draft &draft, const Load &load, const MappedArray<Text> &texts,
              MappedArray<Elf64_Phdr> *out) {
    u64 start = load.start, file_end = load.file_end;
    for (const Text &text : texts) {
        if (text.start <= start && start < text.end)
            start = min(text.end, file_end);
        else if (start < text.start && text.start < file_end)
            file_end = text.start;
    }
    // What is behind the file's part stays with the last of it.
    const u64 end = file_end == load.file_end ? load.end : file_end;
    if (start == load.start && file_end == load.file_end)
        return out->push(moved(draft.file.headers()[load.header], draft.places.of(start)));
    if (start < file_end)
        return out->push(loaded(draft, load.flags, start, file_end, end, kPageSize));
    if (start < end) {
        for (size_t i = 0; i < texts.size(); ++i) {
            Elf64_Phdr &text = (*out)[i];
            if (text.p_vaddr < start && start - text.p_vaddr <= text.p_filesz)
                text.p_memsz = max<u64>(text.p_memsz, end - text.p_vaddr);
        }
    }
    return true;
}

// The loaded segments as they will be mapped: each run belongs to one `R E` segment, together with
// the text that reaches into or out of it. No more than there were: each of them holds text of its
// own, and of a segment without text at most the head and the tail go.
bool merge(const Draft &draft, MappedArray<Elf64_Phdr> *out) {
    MappedArray<Text> texts;
    if (!merge_texts(draft, &texts)) return false;
    for (const Text &text : texts) {
        const u64 shift = draft.places.of(text.start) - text.start;
        const u64 align = shift % kHugeSize ? kPageSize : kHugeSize;
        if (!out->push(loaded(draft, PF_R | PF_X, text.start, text.end, text.end, align)))
            return false;
    }
    for (const Load &load : draft.file.loads())
        if (!add_rest(draft, load, texts, out)) return false;
    // By insertion: they are few, and equal ones must keep their order.
    for (size_t i = 1; i < out->size(); ++i) {
        const Elf64_Phdr header = (*out)[i];
        size_t at = i;
        for (; at > 0 && (*out)[at - 1].p_vaddr > header.p_vaddr; --at) (*out)[at] = (*out)[at - 1];
        (*out)[at] = header;
    }
    return true;
}

// The other program headers: moved with what they refer to.
LaidOut describe_other(Draft &draft, const Elf64_Phdr &header, u64 table, Elf64_Phdr *out) {
    const ElfFile &file = draft.file;
    *out = header;
    if (header.p_type == PT_PHDR) {
        out->p_offset = table;
    } else if (header.p_type == PT_NULL || header.p_type == PT_GNU_STACK ||
               (header.p_vaddr | header.p_offset | header.p_filesz) == 0) {
        return {};
    } else if (header.p_filesz == 0) {
        out->p_offset = draft.places.near(header.p_vaddr);
    } else if (file.find_loaded(header.p_vaddr, header.p_filesz)) {
        out->p_offset = draft.places.of(header.p_vaddr);
    } else if (header.p_filesz <= file.size() && header.p_offset <= file.size() - header.p_filesz) {
        if (!draft.append_piece(header.p_offset, header.p_filesz, 8)) return fail(-sys::kEnomem);
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
    MappedArray<Elf64_Phdr> loads;
    if (!merge(draft, &loads)) return fail(-sys::kEnomem);
    size_t slots = 0;
    for (const Elf64_Phdr &header : draft.file.headers()) slots += header.p_type == PT_LOAD;
    if (loads.size() > slots)
        return refuse("has a segment layout that needs more program headers than it has");
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
        if (!headers->push(described)) return fail(-sys::kEnomem);
    }
    return {};
}

}  // namespace pht
