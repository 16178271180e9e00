#include "kernel/maps.h"

namespace pht {

ErrorOr<void> MapsQuery::next(u64 address, Mapping *out) {
    if (!ready_) {
        ready_ = true;
        fd_ = sys::open("/proc/self/maps");
        if (names_) name_ = room_.take(kName);
    }
    if (!fd_.ok()) return Error(fd_);
    if (names_ && !name_) return Error{ENOMEM};
    procmap_query query = {};
    query.size = sizeof query;
    query.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
    query.query_addr = address;
    query.vma_name_addr = reinterpret_cast<u64>(name_);
    query.vma_name_size = names_ ? kName : 0;
    const auto result = sys::ioctl(fd_.value(), PROCMAP_QUERY, &query);
    if (!result.ok()) return Error(result);
    out->start = query.vma_start;
    out->end = query.vma_end;
    out->offset = query.vma_offset;
    out->inode = query.inode;
    out->dev_major = query.dev_major;
    out->dev_minor = query.dev_minor;
    out->readable = query.vma_flags & PROCMAP_QUERY_VMA_READABLE;
    out->writable = query.vma_flags & PROCMAP_QUERY_VMA_WRITABLE;
    out->executable = query.vma_flags & PROCMAP_QUERY_VMA_EXECUTABLE;
    out->shared = query.vma_flags & PROCMAP_QUERY_VMA_SHARED;
    out->path = {name_, query.vma_name_size ? query.vma_name_size - 1 : 0};
    return {};
}

size_t unescape(char *path, size_t size) {
    const Str newline = str("\\012");
    size_t to = 0;
    for (size_t at = 0; at < size; ++to) {
        const bool escaped = starts_with({path + at, size - at}, newline);
        path[to] = escaped ? '\n' : path[at];
        at += escaped ? newline.size : 1;
    }
    return to;
}

bool parse_mapping(Str line, Mapping *out) {
    Cursor cursor{line.data, line.data + line.size};
    out->start = cursor.number(16);
    cursor.expect('-');
    out->end = cursor.number(16);
    cursor.expect(' ');
    out->readable = cursor.take() == 'r';
    out->writable = cursor.take() == 'w';
    out->executable = cursor.take() == 'x';
    out->shared = cursor.take() == 's';
    cursor.expect(' ');
    out->offset = cursor.number(16);
    cursor.expect(' ');
    out->dev_major = static_cast<u32>(cursor.number(16));
    cursor.expect(':');
    out->dev_minor = static_cast<u32>(cursor.number(16));
    cursor.expect(' ');
    out->inode = cursor.number(10);
    cursor.blanks();
    out->path = {cursor.at, static_cast<size_t>(cursor.end - cursor.at)};
    out->escaped = true;
    // Of whole pages, each: who asks counts in them.
    return cursor.ok && out->start < out->end && (out->start | out->end) % kPageSize == 0;
}

}  // namespace pht
