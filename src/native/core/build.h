// Building the new content of a stretch aside. Nothing here touches the live text but to read it.
#pragma once

#include "pagemap.h"
#include "region.h"
#include "stores.h"

namespace pht {

// The original file of a region, held open while new content is built.
class Original {
public:
    Original() = default;
    ~Original();
    Original(const Original &) = delete;
    Original &operator=(const Original &) = delete;

    // Opens it and makes sure that it is the very file that was mapped. What changed in place
    // since it was copied (region.file) is another file.
    Outcome open(const Region &region);

    int fd() const { return fd_; }
    const sys::FileIdentity &file() const { return file_; }
    // Size and modification time are what they were, the change time is not. That may be a new mode
    // or name (uv links libraries into environments), or another content whose time was put back:
    // only comparing tells.
    bool touched() const { return touched_; }

private:
    bool touched_ = false;
    int fd_ = -1;
    sys::FileIdentity file_;
};

// What building draws on besides the region.
struct Sources {
    const Pagemap &pagemap;
    const Stores &stores;
    const Original &original;
    Outcome opened;  // of the original
};

// Builds [target, target + length) of the region with one backing: readable and executable, at a
// scratch address congruent to the target modulo 2 MiB. On success *aside is to be moved or
// discarded by the caller; on failure nothing is left.
Outcome build(Backing backing, const Region &region, const Sources &sources, u64 target, u64 length,
              Aside *aside);

// Unmaps what was built and not moved.
void discard(u64 address, u64 length);

// Reserves `length` bytes of address space at a 2 MiB boundary, inaccessible.
Outcome reserve_scratch(u64 length, u64 *address);

// Maps a stretch of a file as text is mapped, touches it (and collapses it first, if asked), and
// counts the bytes the kernel then maps in 2 MiB pages. Returns 0 or -errno.
long probe_huge(int fd, u64 offset, u64 length, bool collapse_first, u64 *bytes);

// Whether a descriptor is the file that maps names so. st_dev does not tell: btrfs and overlayfs
// have another device there than in maps.
bool is_mapped_file(int fd, u32 dev_major, u32 dev_minor, u64 inode);

}  // namespace pht
