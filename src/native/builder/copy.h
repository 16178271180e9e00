// Writing a copy, and comparing one with its original.
#pragma once

#include "builder/layout.h"
#include "builder/trouble.h"

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

// Writes the copy to the empty file `target`, in aligned writes of 2 MiB: what makes a file system
// use 2 MiB folios. Holes stay holes where nothing can be mapped huge.
Trouble write_copy(const Layout &layout, int source, int target);

// Compares a copy with what would be written now. *differs: at which offset, of the 2 MiB step; ~0
// where every byte is the same.
Trouble compare_copy(const Layout &layout, int source, int target, u64 *differs);

}  // namespace pht
