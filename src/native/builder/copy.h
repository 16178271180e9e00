// Writing a copy, and comparing one with its original.
#pragma once

#include "builder/layout.h"
#include "builder/writer.h"
#include "store/copy_window.h"

namespace pht {

// A buffer of 2 MiB. A mapping: what malloc gives back changes how the program's own blocks are
// made; see mallopt(3).
class CopyBuffer : NonCopyable {
public:
    CopyBuffer() : data_(static_cast<u8 *>(map_memory(kHugeSize))) {
        // One fault in place of 512, where the kernel aligned it.
        if (data_) (void)sys::madvise(reinterpret_cast<u64>(data_), kHugeSize, MADV_HUGEPAGE);
    }
    ~CopyBuffer() {
        if (data_) unmap_memory(data_, kHugeSize);
    }
    u8 *data() { return data_; }

private:
    u8 *data_;
};

// Puts bytes [start, start + size) of the copy of `source` into the buffer; what lies between its
// parts is zero. Whether they come from holes of the original alone.
ErrorOr<bool> fill(const Layout &layout, int source, u64 start, size_t size, u8 *to);

// Writes and compares the chunks of one copy.
class CopyFile : NonCopyable {
public:
    CopyFile(const Layout &layout, int source) : layout_(layout), source_(source) {}

    // One that is open for reading; it is not closed here.
    void use(int target) {
        target_ = target;
        window_.use(target);
    }
    // The same one for writing as well, by its name; or a new one.
    ErrorOr<void> open_at(int directory, const char *name);
    ErrorOr<void> create_at(int directory, const char *name);
    int target() const { return target_; }
    bool is_writable() const { return written_ >= 0; }

    // Writes a chunk where nothing was ever written, in aligned writes: what makes a file system
    // use 2 MiB folios. Holes stay holes where nothing can be mapped huge. What was written when it
    // failed is taken back.
    Trouble write(size_t chunk);
    // Whether nothing was ever written there.
    ErrorOr<bool> is_blank(size_t chunk) const;
    // Whether the copy has there what would be written now.
    Trouble compare(size_t chunk, bool *same);

private:
    Trouble read(size_t chunk, bool *hole);

    const Layout &layout_;
    const int source_;
    int target_ = -1;
    Written written_;
    CopyBuffer buffer_;
    CopyWindow window_;
};

// Compares what is there of a copy, by the bitmap of its record, with what would be written now.
// *differs: at which offset, of the chunk; ~0 where every byte is the same.
Trouble compare_copy(const Layout &layout, int source, int target, const u8 *present, u64 *differs);

}  // namespace pht
