// Building the new content of a stretch aside. Nothing here touches the live text but to read it.
#pragma once

#include "elf/region.h"
#include "kernel/scratch.h"
#include "store/stores.h"

namespace pht {

// The original file of a region, held open while new content is built.
class Original : NonCopyable {
public:
    Original() = default;
    ~Original();

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
    Outcome opened;                // of the original
    const Entry *entry = nullptr;  // of the store, where the content comes from one
    Mender *mender = nullptr;      // of stores on disk
    u8 *left = nullptr;            // set for pages of a stretch that stay on the original
};

// Builds [target, target + length) of the region with one backing: readable and executable, at a
// scratch address congruent to the target modulo 2 MiB. On success *aside is to be moved or
// discarded by the caller; on failure nothing is left.
Outcome build(Backing backing, const Region &region, const Sources &sources, u64 target, u64 length,
              Staged *staged);

// The same with ordinary anonymous memory, of a stretch that lies on reserved huge pages now.
Outcome build_from_reserved(const Region &region, const Sources &sources, u64 target, u64 length,
                            Staged *staged);

// Unmaps what was built and not moved.
void discard(u64 address, u64 length);

}  // namespace pht
