#include "builder/itself.h"

#include "builder/room.h"
#include "builder/verdict.h"
#include "kernel/scratch.h"

namespace pht {

namespace {

// Where a chunk of the copy would be mapped from in the original; false where it cannot be.
bool find_origin(const Layout &layout, u64 chunk, u64 *offset) {
    const u64 start = chunk * kHugeSize;
    bool known = false;
    for (const CopyPiece &piece : layout.pieces) {
        if (piece.at + piece.length <= start || piece.at >= start + kHugeSize) continue;
        const u64 here = piece.origin + start - piece.at;  // may wrap below 0, and back
        if (known && here != *offset) return false;
        *offset = here;
        known = true;
    }
    return known && *offset % kHugeSize == 0;
}

}  // namespace

bool takes_itself(int original, const Layout &layout) {
    MappedArray<u64> offsets;
    for (size_t chunk = 0; chunk < layout.uses.size(); ++chunk) {
        u64 offset = 0;
        if (!(layout.uses[chunk] & kUseText)) continue;
        if (!find_origin(layout, chunk, &offset) || !offsets.push(offset)) return false;
    }
    for (const u64 offset : offsets) {
        u64 bytes = 0;
        (void)probe_huge(original, offset, kHugeSize, true, &bytes, trial_protection());
        if (bytes != kHugeSize) return false;
    }
    return !offsets.empty();
}

void settle_trial(const StoreWriter &writer, const Wanted &wanted, Boot &boot) {
    const KeyText key = record_key(wanted.file, wanted.bias);
    StoredFile stored;
    stored.read(writer.index(), key.data);
    if (!stored.is_record()) return;
    if (wanted.itself == Itself::taken && stored.record().head->refused_by)
        drop_record(writer, key.data, boot);
    // A restriction of this process is none of the kernel's.
    if (wanted.itself == Itself::to_note && !is_restricted())
        (void)write_refused(writer, key.data, stored);
}

}  // namespace pht
