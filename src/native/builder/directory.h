// Directories by descriptor: what is in them, what it takes, and removing it. Only plain names are
// ever used, below a directory that is open.
#pragma once

#include "kernel/memory.h"
#include "kernel/strings.h"
#include "kernel/sys_write.h"

namespace pht {

// The names in a directory, each ended by a NUL, without `.` and `..`.
class Names {
public:
    ErrorOr<void> read(int directory);

    bool next(const char **name) {
        if (at_ >= text_.size()) return false;
        *name = text_.data() + at_;
        at_ += length(*name) + 1;
        return true;
    }

private:
    MappedArray<char> text_;
    size_t at_ = 0;
};

// Whether this is one plain step: not empty, no slash, neither `.` nor `..`.
bool is_plain(Str name);

// Opens a directory by its plain name, not through a symbolic link, for reading its names.
ErrorOr<int> open_plain_directory(int parent, const char *name);

// Makes a directory with exactly this mode, whatever the umask and a default ACL leave of it: what
// may not even be searched by its owner could not be opened.
ErrorOr<void> make_plain_directory(int parent, const char *name, u32 mode);

// What a file, or a directory with all in it, takes on disk; 0 where it is gone.
u64 disk_bytes(int parent, const char *name);

// Removes a file, or a directory with all in it. No error where it is gone.
ErrorOr<void> remove_tree(int parent, const char *name);

}  // namespace pht
