#include "builder/trouble.h"

#include "kernel/uapi.h"

namespace pht {

namespace {

struct ErrorText {
    int number;
    const char *text;
};
constexpr ErrorText kErrors[] = {
    {EPERM, "operation not permitted (EPERM)"},
    {ENOENT, "no such file or directory (ENOENT)"},
    {EINTR, "interrupted by a signal (EINTR)"},
    {EIO, "input/output error (EIO)"},
    {ENXIO, "no such device or address (ENXIO)"},
    {EBADF, "bad file descriptor (EBADF)"},
    {EAGAIN, "try again (EAGAIN)"},
    {ENOMEM, "cannot allocate memory (ENOMEM)"},
    {EACCES, "permission denied (EACCES)"},
    {EFAULT, "bad address (EFAULT)"},
    {EBUSY, "device or resource busy (EBUSY)"},
    {EEXIST, "file exists (EEXIST)"},
    {EXDEV, "on another file system (EXDEV)"},
    {ENODEV, "not supported by this file system (ENODEV)"},
    {ENOTDIR, "not a directory (ENOTDIR)"},
    {EISDIR, "is a directory (EISDIR)"},
    {EINVAL, "invalid argument (EINVAL)"},
    {ENFILE, "too many open files in system (ENFILE)"},
    {EMFILE, "too many open files (EMFILE)"},
    {EFBIG, "file too large (EFBIG)"},
    {ENOSPC, "no space left on device (ENOSPC)"},
    {EROFS, "read-only file system (EROFS)"},
    {EMLINK, "too many links (EMLINK)"},
    {ENAMETOOLONG, "file name too long (ENAMETOOLONG)"},
    {ENOLCK, "no locks available (ENOLCK)"},
    {ENOSYS, "not implemented by this kernel (ENOSYS)"},
    {ENOTEMPTY, "directory not empty (ENOTEMPTY)"},
    {ELOOP, "too many symbolic links (ELOOP)"},
    {ENODATA, "no data available (ENODATA)"},
    {EOVERFLOW, "value too large (EOVERFLOW)"},
    {EOPNOTSUPP, "operation not supported (EOPNOTSUPP)"},
    {ESTALE, "stale file handle (ESTALE)"},
    {EDQUOT, "disk quota exceeded (EDQUOT)"},
};

}  // namespace

void add_error(Error error, Buffer<400> *out) {
    for (const ErrorText &known : kErrors) {
        if (known.number != error.number) continue;
        out->add(known.text);
        return;
    }
    out->add("errno ").add_decimal(error.number);
}

Trouble failed_call(const char *call, Str on, Error error) {
    Trouble out;
    out.kind = Trouble::Kind::io;
    out.error = error.number;
    out.text.add(call);
    if (on.size) out.text.add(" ").add(on);
    out.text.add(": ");
    add_error(error, &out.text);
    return out;
}

Trouble failed_call(const char *call, Error error) {
    return failed_call(call, {}, error);
}

Trouble trouble(Trouble::Kind kind, Str subject, const char *text) {
    Trouble out;
    out.kind = kind;
    out.text.add(subject).add(text);
    return out;
}

Trouble trouble(Trouble::Kind kind, const char *text) {
    return trouble(kind, {}, text);
}

}  // namespace pht
