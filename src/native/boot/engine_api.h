// The engine as the binding sees it: a table of functions in a capsule of the module that holds
// the one engine of the process. No symbol is shared between the two shared objects.
#pragma once

#include "engine.h"

namespace pht {

struct PlainRequest {
    Backing backing;
    u64 minimum_text, private_limit;
    Str include, exclude;  // patterns, each ended by a NUL
};

struct EngineApi {
    // False when memory ran out; nothing was done then.
    bool (*remap)(const PlainRequest &request);
    void (*restore)();
    const Snapshot *(*take_snapshot)();  // nullptr when memory ran out
    void (*free_snapshot)(const Snapshot *snapshot);
};

inline constexpr const char *kCapsule = "pyhugetext._boot.engine";

}  // namespace pht
