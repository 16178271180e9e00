// Why something could not be done, told once where it happened, as a person reads it.
#pragma once

#include "kernel/error_or.h"
#include "kernel/strings.h"

namespace pht {

struct Trouble {
    enum class Kind : u8 {
        none,
        refused,      // the file is none that can be represented
        changed,      // it was changed while it was copied
        full,         // no room for the copy
        untrusted,    // somebody else could have written there
        busy,         // another process is writing to the store
        interrupted,  // a signal came while it waited
        gone,         // the store was removed meanwhile
        io,           // a call failed; `error` is its errno
    };
    Kind kind = Kind::none;
    u16 error = 0;
    Buffer<400> text;

    bool ok() const { return kind == Kind::none; }
    // Who has no descriptor left has none for another store, and others have.
    bool lacks_descriptors() const { return error == EMFILE || error == ENFILE; }
    // And of this moment: others, and the next start, may succeed.
    bool is_of_this_process() const {
        return error == EINTR || error == ENOMEM || error == EFBIG || lacks_descriptors();
    }
    // Of the store's disk: it would be the same at the next start.
    bool lasts() const { return (kind == Kind::full || kind == Kind::io) && !is_of_this_process(); }
};
inline constexpr const char *kTroubleNames[] = {
    "none", "refused", "changed", "full", "untrusted", "busy", "interrupted", "gone", "io"};

// "no space left on device (ENOSPC)", "errno 512".
void add_error(Error error, Buffer<400> *out);

// A call that failed: "write: no space left on device (ENOSPC)".
Trouble failed_call(const char *call, Error error);
// The same, on something: "mkdir v1/objects: ...".
Trouble failed_call(const char *call, Str on, Error error);

Trouble trouble(Trouble::Kind kind, const char *text);
Trouble trouble(Trouble::Kind kind, Str subject, const char *text);

}  // namespace pht
