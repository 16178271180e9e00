// A file descriptor that is closed at the end of its scope.
#pragma once

#include "kernel/sys.h"

namespace pht {

class Descriptor : NonCopyable {
public:
    explicit Descriptor(ErrorOr<int> fd) : fd_(fd) {}
    explicit Descriptor(int fd) : fd_{fd} {}  // below 0: none
    ~Descriptor() {
        if (ok()) sys::close(fd_.value());
    }
    bool ok() const { return fd_.word >= 0; }
    u16 error() const { return fd_.error(); }  // of what was to open it
    operator Error() const { return fd_; }
    operator int() const { return fd_.value(); }

private:
    const ErrorOr<int> fd_;
};

}  // namespace pht
