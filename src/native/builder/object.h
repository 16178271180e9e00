// Copies by their path in a record.
#pragma once

#include "builder/layout.h"
#include "builder/writer.h"

namespace pht {

// The parts of objects/<object>/<basename>.
struct ObjectName {
    explicit ObjectName(const char *path);
    Buffer<256> object, base;
};

// A name that files of different content seldom share; whoever shares it is compared. A number and
// the basename follow.
Buffer<128> object_name(const Layout &layout, const sys::FileIdentity &file, u64 bias);

// What a copy is, all zero where there is none.
sys::FileIdentity identify_copy(const StoreWriter &writer, const char *path);

// Opens the copy at a path below v1, which must be one that nobody else can write.
ErrorOr<int> open_copy_at(const StoreWriter &writer, const char *path, sys::FileIdentity *file,
                          Trouble *problem);

}  // namespace pht
