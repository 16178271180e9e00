#include "builder/used.h"

#include "builder/index.h"

namespace pht {

Trouble want_more(StoreWriter &writer, const Wanted &wanted) {
    // A write beyond that raises SIGXFSZ, which kills where the program does not ignore it.
    if (sys::resource_limit(RLIMIT_FSIZE, sys::kUnlimited) < kRecordLimit)
        return failed_call("write", Error{EFBIG});
    const KeyText key = record_key(wanted.file, wanted.bias);
    StoredFile stored;
    if (!stored.data()) return failed_call("mmap", Error{ENOMEM});
    bool waited;
    // What killed builders left is a builder's to remove.
    const Trouble problem = writer.lock(0, &waited, false);
    if (!problem.ok()) return problem;
    const Held held(writer);
    stored.read(writer.index(), key.data);
    if (!stored.is_record() || !is_record_of(*stored.record().head, wanted.file, wanted.bias))
        return trouble(Trouble::Kind::gone, "there is no record");
    const RecordView &record = stored.record();
    auto *const bits = stored.data() + (record.wanted - stored.data());
    bool more = false;
    for (size_t i = 0; i < wanted.page_count; ++i) {
        const Range *range = record.find(wanted.pages[i], kHugeSize);
        const u64 at = range ? range->offset + (wanted.pages[i] - range->address) : ~0ull;
        if (at >= record.head->object_size || has_bit(bits, at / kHugeSize)) continue;
        set_bit(bits, at / kHugeSize);
        more = true;
    }
    return more ? write_wanting(writer, key.data, stored) : Trouble{};
}

}  // namespace pht
