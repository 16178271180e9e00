// What start-up asks for where the environment has no variable of ours: nearly always.
#pragma once

#include "engine.h"

namespace pht {

inline constexpr u64 kMinimumText = 256ull << 10;
inline constexpr u64 kPrivateLimit = 64ull << 20;
inline constexpr const char *kSystemStore = "/var/cache/pyhugetext";

// Whether the environment comes from somebody less privileged; see getauxval(3), AT_SECURE. Such a
// process takes nothing from it: no setting, no store of a user's, and nothing is built.
bool in_secure_mode();

// Whether there is a PYHUGETEXT variable that counts: then Python reads them all.
bool is_configured();

class DefaultRequest {
public:
    DefaultRequest();
    DefaultRequest(const DefaultRequest &) = delete;
    DefaultRequest &operator=(const DefaultRequest &) = delete;
    const PlainRequest &plain() const { return plain_; }

private:
    // Directories, each ended by a NUL. An embedder may start Python on a small stack.
    Room<512> room_;
    Buffer<64> shm_store_;
    PlainRequest plain_;
};

}  // namespace pht
