#include "maps.h"

namespace pht {

bool LineReader::next(Str *line) {
    if (error_) return false;
    if (!window_ && !(window_ = static_cast<char *>(allocate(kWindow)))) {
        error_ = -sys::kEnomem;
        return false;
    }
    for (;;) {
        for (size_t at = from_; at < to_; ++at) {
            if (window_[at] == '\n') {
                *line = {window_ + from_, at - from_};
                from_ = at + 1;
                return true;
            }
        }
        if (ended_) return false;  // what is left is not a whole line
        if (from_ > 0) {
            for (size_t at = from_; at < to_; ++at) window_[at - from_] = window_[at];
            to_ -= from_;
            from_ = 0;
        }
        if (to_ == kWindow) {
            error_ = -sys::kEinval;
            return false;
        }
        const long got = sys::read(fd_, window_ + to_, kWindow - to_);
        if (got == -sys::kEintr) continue;
        if (sys::failed(got)) {
            error_ = got;
            return false;
        }
        if (got == 0) ended_ = true;
        to_ += static_cast<size_t>(got);
    }
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
    cursor.spaces();
    out->path = {cursor.at, static_cast<size_t>(cursor.end - cursor.at)};
    return cursor.ok && out->start < out->end;
}

}  // namespace pht
