// Records made from an input: what a builder writes, and what is like it.
#pragma once

#include <string>

#include "check.h"
#include "store/record.h"

namespace fuzz {

struct Parts {
    pht::Record head = {};
    std::string ranges, paths, header, bitmap;

    std::string sealed() {
        head.path_size = static_cast<pht::u32>(paths.size());
        head.header_size = static_cast<pht::u32>(header.size());
        head.range_count = static_cast<pht::u32>(ranges.size() / sizeof(pht::Range));
        memcpy(head.magic, pht::kRecordMagic, sizeof head.magic);
        std::string all(reinterpret_cast<const char *>(&head), sizeof head);
        all += ranges + paths + header + bitmap;
        pht::seal_record(reinterpret_cast<pht::u8 *>(all.data()), all.size());
        return all;
    }
};

// The view of a record that was accepted.
inline void check_view(const pht::RecordView &view, const pht::u8 *data, size_t size) {
    using namespace pht;
    const Record &head = *view.head;
    const auto inside = [&](const void *at, size_t length) {
        const auto *const from = static_cast<const u8 *>(at);
        return from >= data && from <= data + size &&
               length <= static_cast<size_t>(data + size - from);
    };
    CHECK(reinterpret_cast<const u8 *>(&head) == data && head.size == size);
    CHECK(inside(view.ranges, head.range_count * sizeof(Range)));
    CHECK(inside(view.path, head.path_size) && inside(view.header, head.header_size));
    CHECK(inside(view.present, bitmap_size(head.object_size)));
    CHECK(strnlen(view.path, head.path_size) < head.path_size);
    const Str origin = view.origin();
    CHECK(!origin.size || inside(origin.data, origin.size));
    (void)view.durable();
    (void)view.may_grow();
    // Nothing that the file cannot have is ever named.
    const u64 chunks = round_up(head.object_size, kHugeSize) / kHugeSize;
    for (const u64 at : {head.object_size, chunks * kHugeSize, ~u64{0}, u64{1} << 63})
        CHECK(!view.has(at));
    for (u64 chunk = 0; chunk < chunks; ++chunk) (void)view.has(chunk * kHugeSize);
    for (u32 i = 0; i < head.range_count; ++i) {
        const Range &range = view.ranges[i];
        for (const u64 length : {u64{0}, kHugeSize, range.length, ~u64{0}}) {
            const Range *const found = view.find(range.address, length);
            CHECK(!found || (found >= view.ranges && found < view.ranges + head.range_count &&
                             length <= found->length));
        }
    }
}

}  // namespace fuzz
