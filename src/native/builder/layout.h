// temporary
#pragma once
#include "record.h"
namespace pht {
struct CopyPiece {
    u64 at, origin, length;
};
struct Patch {
    u64 at;
    size_t from, size;
};
struct Layout {
    MappedArray<CopyPiece> pieces;
    MappedArray<Patch> patches;
    MappedArray<u8> bytes;
    MappedArray<Range> ranges;
    u64 size = 0, build_id_at = 0;
    u32 header_size = 0;
    BuildId build_id;
};
struct LaidOut {
    const char *refused = nullptr;
    long error = 0;
    bool ok() const { return !refused && !error; }
};
LaidOut lay_out(int fd, u64 size, u64 bias, Layout *out);
}  // namespace pht
