// A growing entry: a record, and a copy with holes that need not fit it. Whatever the two say, a
// page that the record does not name, or that the file has not, is never mapped to be executed.

#include <sys/mman.h>
#include <unistd.h>

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
constexpr const char *kPath = "objects/0123/libx.so";

// The copy: a memory file, all of which can be mapped, and what is said to be written of it.
struct Copy {
    int fd = memfd_create("copy", MFD_CLOEXEC);
    u64 size = 0;
    std::vector<std::pair<u64, u64>> written;

    bool has(u64 from, u64 to) const {
        for (const auto &[start, end] : written)
            if (start <= from && to <= end) return true;
        return false;
    }
};
Copy copy_;

void make_copy(fuzz::Input *input, const std::string &header, const pht::BuildId &id, u64 id_at) {
    CHECK(ftruncate(copy_.fd, 0) == 0);
    copy_.size = 1 + input->number<pht::u32>() % (kMostChunks * kHugeSize);
    if (input->number() & 3) copy_.size = pht::round_up(copy_.size, kHugeSize);
    CHECK(ftruncate(copy_.fd, static_cast<off_t>(copy_.size)) == 0);
    copy_.written.clear();
    const auto add = [](u64 start, u64 end) {
        end = std::min(end, copy_.size);
        if (start >= end) return;
        if (!copy_.written.empty() && copy_.written.back().second == start)
            copy_.written.back().second = end;
        else
            copy_.written.emplace_back(start, end);
    };
    for (u64 chunk = 0; chunk < kMostChunks; ++chunk) {
        const u64 at = chunk * kHugeSize, some = input->number() * kPageSize;
        // All, its begin or its end, or nothing.
        switch (input->number() % 6) {
            case 0:
                add(at, at + some);
                break;
            case 1:
                add(at + some + kPageSize, at + kHugeSize);
                break;
            case 2:
                break;
            default:
                add(at, at + kHugeSize);
        }
    }
    const auto write = [](u64 at, const void *bytes, size_t size) {
        if (at >= copy_.size || size > copy_.size - at) return;
        CHECK(pwrite(copy_.fd, bytes, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size));
    };
    const u8 truth = input->number();
    if (truth & 7) write(0, header.data(), header.size());
    if (truth & 56) write(id_at, id.bytes, id.size);
}

// What was mapped, against record and file.
void check_mapped(const pht::RecordView &record) {
    for (const auto &[address, mapped] : fuzz::world.executable) {
        (void)address;
        CHECK(mapped.offset % kHugeSize == 0 && mapped.length % kHugeSize == 0);
        CHECK(copy_.has(mapped.offset, mapped.offset + mapped.length));
        for (u64 at = mapped.offset; at < mapped.offset + mapped.length; at += kHugeSize)
            CHECK(record.has(at));
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
            CHECK(address % kHugeSize == 0 && fuzz::world.executable.count(address));
            check_mapped(record);
            pht::sys::munmap(address, count * kHugeSize);
        }
        CHECK(fuzz::world.executable.empty());
        first += count;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    fuzz::fresh();
    fuzz::may_use_pool = true;
    fuzz::Input input(data, size);
    fuzz::Parts parts;
    pht::Record &head = parts.head;
    const u8 kind = input.number();

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
    head.object_size = kind & 4 ? copy_.size : input.number<u64>() % (1ull << 40);
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
    const std::string key = pht::record_key(region.file, bias).data;
    fuzz::world.add("/store/v1/index/" + key, bytes).mode = S_IFREG | (kind & 16 ? 0444 : 0644);
    fuzz::Node &node = fuzz::world.add(std::string("/store/v1/") + kPath, "");
    node.real = copy_.fd;
    node.size = copy_.size;
    node.written = copy_.written;
    try_entry(region, bytes);
    CHECK(fuzz::world.open_count() == 0);
    return 0;
}
