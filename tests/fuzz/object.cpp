// An ELF object in memory: any program headers and notes, of segments that are really there.

#include "elf/object.h"

#include <sanitizer/asan_interface.h>

#include <vector>

#include "check.h"

using pht::kPageSize;
using pht::u64;
using pht::u8;

namespace {

constexpr size_t kMostHeaders = 24, kMostMemory = 64 << 10;

// Whole pages, of which nothing may be read but what an input has of them.
alignas(kPageSize) u8 all_pages[kMostMemory + 2 * kPageSize];

u8 *forbid(size_t size) {
    __asan_poison_memory_region(all_pages, size);
    return all_pages;
}

void check_notes(fuzz::Exact *memory, u64 alignment) {
    pht::ElfNotes notes;
    pht::read_notes(memory->bytes(), memory->size(), alignment, &notes);
    const pht::BuildId &id = notes.build_id;
    CHECK(id.size <= sizeof id.bytes && (notes.found || id.size == 0));
    if (!notes.found) return;
    CHECK(notes.build_id_at <= memory->size() && id.size <= memory->size() - notes.build_id_at);
    CHECK(memcmp(id.bytes, memory->data() + notes.build_id_at, id.size) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    fuzz::may_use_pool = true;
    fuzz::Input input(data, size);
    const u8 kind = input.number();
    const size_t count = input.number() % (kMostHeaders + 1);
    std::vector<Elf64_Phdr> headers(count);
    for (Elf64_Phdr &header : headers) header = input.number<Elf64_Phdr>();
    const std::string_view bytes = input.rest();
    const u64 alignment = kind & 1 ? 4 : 8;
    {
        fuzz::Exact notes(bytes);
        check_notes(&notes, alignment);
    }
    (void)pht::may_be_coverable(0x7f0000000000, headers.data(), count);

    // What a loader refuses never gets here: segments lie in memory that is there.
    const size_t room = pht::round_up(std::min(bytes.size(), kMostMemory) + 1, kPageSize);
    static u8 *const memory = forbid(sizeof all_pages);
    __asan_unpoison_memory_region(memory, room);
    memset(memory, 0, room);
    memcpy(memory, bytes.data(), std::min(bytes.size(), room));
    for (Elf64_Phdr &header : headers) {
        if (header.p_type != PT_LOAD) continue;
        header.p_vaddr %= room;
        header.p_memsz %= room - header.p_vaddr + 1;
    }
    pht::Object object;
    const u64 bias = reinterpret_cast<u64>(memory);
    CHECK(pht::read_object(bias, headers.data(), count, kind & 2, &object));
    CHECK(object.build_id.size <= sizeof object.build_id.bytes);
    for (const pht::Segment &segment : object.segments) {
        CHECK(segment.start < segment.end && object.low <= segment.start);
        CHECK(segment.end <= object.high && segment.start % kPageSize == 0);
    }
    if (object.segments.empty()) CHECK(object.low == 0 && object.high == 0);
    object.segments.reset();
    forbid(room);
    return 0;
}
