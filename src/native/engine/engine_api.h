// The engine as the binding sees it: a table of functions in a capsule of the module that holds
// the one engine of the process. No symbol is shared between the two shared objects.
#pragma once

#include "builder/layout.h"
#include "engine/engine.h"
#include "engine/store_api.h"
#include "limits/memory.h"

namespace pht {

struct EngineApi {
    // What the environment of this process asks for.
    const Request &(*settings)();
    // As the functions of Engine.
    long (*remap)(const Request &request);
    bool (*complete)(const Patience &patience);
    bool (*restore)();
    const Snapshot *(*take_snapshot)();
    void (*free_snapshot)(const Snapshot *snapshot);
    // For other processes; see process/elsewhere.h.
    ErrorOr<int> (*open_elsewhere)(int directory, const char *name, Way way);
    Outcome (*read_head)(int path_fd, u32 dev_major, u32 dev_minor, u64 inode, Elf64_Phdr *headers,
                         ElfHead *out);
    const Snapshot *(*plan_elsewhere)(const ProcessObject &object);
    ErrorOr<void> (*find_entries)(int pagemap, u64 start, size_t count, u8 *marks);
    void (*memory_room)(MemoryRoom *out);  // see limits/memory.h; takes no lock
    u64 (*shared_allowance)(const MemoryRoom &room, u64 configured, u64 present);
    // As probe_huge() of the core.
    ErrorOr<void> (*probe)(int fd, u64 offset, u64 size, bool collapse, u64 *bytes);
    // As lay_out() of the builder; *out only when it went well, to be given back.
    LaidOut (*lay_out)(int fd, u64 size, u64 bias, const Layout **out);
    void (*free_layout)(const Layout *layout);
    const StoreApi *store;
};

// With the version: the module may have been loaded at start from one installation, and the binding
// come from another one that is earlier on sys.path.
inline constexpr const char *kCapsule = "pyhugetext._boot.engine of " PYHUGETEXT_VERSION;

}  // namespace pht
