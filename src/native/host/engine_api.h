// The engine as others see it than the shared object that holds it: a table of functions. The
// binding finds it in a capsule of the module of the start-up path, and another host by one symbol.
#pragma once

#include "builder/layout.h"
#include "engine/engine.h"
#include "engine/store_api.h"
#include "limits/memory.h"
#include "settings/settings.h"

namespace pht {

struct EngineApi {
    // What the environment of this process asked for, when the engine's host read it.
    const Settings &(*settings)();
    // As in host.h.
    void (*start)(const Patience &patience);
    void (*look)(const Patience &patience);
    // As the functions of Engine.
    bool (*started)();
    bool (*stale)(bool loaded);
    void (*interpreter_at)(u64 address);
    long (*remap)(const Request &request);
    bool (*complete)(const Patience &patience);
    bool (*restore)();
    const Snapshot *(*take_snapshot)(bool asked);
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

// What a host exports as the function pyhugetext_engine(): its engine, for others of the same
// version. These three members stay as they are in every version to come.
struct EngineOffer {
    const char *version;  // kCapsule
    u64 layout;           // what else has to be the same
    const EngineApi *api;
};

}  // namespace pht
