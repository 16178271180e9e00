// A growing entry: a record, and a copy with holes that need not fit it. Whatever the two say, a
// page that the record does not name, or that the file has not, is never mapped to be executed.

#include "check.h"
#include "records.h"
#include "store/store.h"
#include "world.h"

using pht::kHugeSize;
using pht::kPageSize;
using pht::u64;
using pht::u8;

namespace {

constexpr u64 kBase = 0x7f0000000000, kMostChunks = 12;
constexpr const char *kCopy = "/store/v1/objects/0123/libx.so", *kPath = kCopy + 10;

// The copy: a file, all of which can be mapped, and what is said to be written of it.
fuzz::Sparse copy_;

bool has(u64 from, u64 to) {
    for (size_t i = 0; i < copy_.written_count; ++i)
        if (copy_.written[i].start <= from && to <= copy_.written[i].end) return true;
    return false;
}

void add_written(u64 start, u64 end) {
    end = std::min(end, copy_.size);
    if (start >= end) return;
    size_t &count = copy_.written_count;
    if (count && copy_.written[count - 1].end == start)
        copy_.written[count - 1].end = end;
    else
        copy_.written.at(count++) = {start, end};
}

void make_copy(fuzz::Input *input, std::string_view header, const pht::BuildId &id, u64 id_at) {
    copy_ = {};
    copy_.size = 1 + input->number<pht::u32>() % (kMostChunks * kHugeSize);
    if (input->number() & 3) copy_.size = pht::round_up(copy_.size, kHugeSize);
    for (u64 chunk = 0; chunk < kMostChunks; ++chunk) {
        const u64 at = chunk * kHugeSize, some = input->number() * kPageSize;
        // All, its begin or its end, or nothing.
        switch (input->number() % 6) {
            case 0:
                add_written(at, at + some);
                break;
            case 1:
                add_written(at + some + kPageSize, at + kHugeSize);
                break;
            case 2:
                break;
            default:
                add_written(at, at + kHugeSize);
        }
    }
    const auto piece = [](u64 at, std::string_view bytes) -> fuzz::Sparse::Piece {
        if (at >= copy_.size || bytes.size() > copy_.size - at) return {};
        return {at, bytes};
    };
    const u8 truth = input->number();
    if (truth & 7) copy_.pieces[0] = piece(0, header);
    if (truth & 56)
        copy_.pieces[1] = piece(id_at, {reinterpret_cast<const char *>(id.bytes), id.size});
}

// What was mapped, against record and file.
void check_mapped(const pht::RecordView &record) {
    for (const fuzz::Mapped &mapped : fuzz::world.mapped) {
        const u64 end = mapped.offset + (mapped.end - mapped.start);
        if (!mapped.executable) continue;
        CHECK(mapped.file == &copy_ && mapped.offset % kHugeSize == 0 && end % kHugeSize == 0);
        CHECK(has(mapped.offset, end));
        for (u64 at = mapped.offset; at < end; at += kHugeSize) CHECK(record.has(at));
    }
}

void try_entry(const pht::Region &region, const std::string &bytes) {
    pht::Store store;
    const pht::Pagemap pagemap;
    pht::Shared shared{pagemap};
    if (!store.open("/store", false, false).ok()) return;
    pht::Entry entry;
    const pht::Outcome found = store.find(region, -1, region.file, shared, &entry);
    if (!found.ok()) return;
    fuzz::Exact exact(bytes);
    pht::RecordView record;
    CHECK(pht::view_record(exact.bytes(), exact.size(), &record));
    fuzz::check_view(record, exact.bytes(), exact.size());
    // As Table::stage_pages() does: runs of pages that the entry has.
    const size_t pages = region.pages.size();
    for (size_t first = 0; first < pages;) {
        size_t count = 0;
        while (first + count < pages && entry.has(region, region.address_of(first + count)))
            ++count;
        if (!count) {
            ++first;
            continue;
        }
        u64 address = 0;
        std::string left(count, '\0');
        pht::Outcome why;
        const pht::Outcome mapped =
            entry.map(region, pagemap, nullptr, region.address_of(first), count * kHugeSize,
                      reinterpret_cast<u8 *>(left.data()), &why, &address);
        if (mapped.ok()) {
            const fuzz::Mapped *const at = fuzz::world.find_mapped(address);
            CHECK(address % kHugeSize == 0 && at && at->executable);
            CHECK(at->end - at->start == count * kHugeSize);
            check_mapped(record);
            pht::sys::munmap(address, count * kHugeSize);
        }
        CHECK(fuzz::world.mapped_count() == 0);
        first += count;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    fuzz::fresh();
    fuzz::may_use_pool = true;
    fuzz::Input input(data, size);
    fuzz::Parts parts;
    pht::Record &head = parts.head;
    const u8 kind = input.number();
    fuzz::world.aligned = kind & 32;

    pht::Region region;
    const u64 bias = kind & 1 ? 0x155000 : 0;
    region.object.load_bias = kBase + bias;
    region.base = kBase;
    CHECK(region.pages.resize(1 + input.number() % kMostChunks));
    region.object.build_id.size = kind & 2 ? 20 : 0;
    memset(region.object.build_id.bytes, 7, region.object.build_id.size);
    region.file.inode = 7;
    region.file.size = 1 << 20;

    head.inode = 7;
    head.file_size = region.file.size;
    head.bias = bias;
    head.build_id_size = region.object.build_id.size;
    head.build_id_at = input.number<pht::u32>() % (kMostChunks * kHugeSize);
    head.lacking = input.number();
    parts.header = std::string(64 + input.number(), '\x7f');
    parts.paths = std::string(kPath) + '\0' + "/lib/libx.so" + '\0';
    make_copy(&input, parts.header, region.object.build_id, head.build_id_at);
    // Mostly of a size of which the record has all the marks.
    head.object_size =
        kind & 4 ? copy_.size : input.number<u64>() % (kind & 64 ? 1ull << 40 : 1ull << 30);
    for (u8 i = input.number() % 4; i; --i) {
        // Near what is asked for, or anything.
        pht::Range range = {region.base - region.object.load_bias + input.number() % 16 * kHugeSize,
                            input.number() % 16 * kHugeSize, input.number() % 16 * kHugeSize};
        if (kind & 8) range = input.number<pht::Range>();
        parts.ranges.append(reinterpret_cast<const char *>(&range), sizeof range);
    }
    parts.bitmap = std::string(std::min<u64>(pht::bitmap_size(head.object_size), 8192), '\xff');
    for (size_t i = 0; i < 2 && i < parts.bitmap.size(); ++i)
        parts.bitmap[i] = static_cast<char>(input.number());
    const std::string bytes = parts.sealed();

    for (const char *name : {"/", "/store", "/store/v1", "/store/v1/index", "/store/v1/objects",
                             "/store/v1/objects/0123"})
        fuzz::world.add_directory(name);
    const std::string key =
        std::string("/store/v1/index/") + pht::record_key(region.file, bias).data;
    fuzz::world.add(key, bytes).mode = S_IFREG | (kind & 16 ? 0444 : 0644);
    fuzz::world.add(kCopy, "").sparse = &copy_;
    try_entry(region, bytes);
    CHECK(fuzz::world.open_count() == 0);
    return 0;
}
