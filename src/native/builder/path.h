// A path that is taken apart.
#pragma once

#include "kernel/memory.h"
#include "kernel/strings.h"
#include "store/trust.h"

namespace pht {

// A path in a mapping of its own: too long for a small stack.
class Path : NonCopyable {
public:
    explicit Path(const char *text) : text_(static_cast<char *>(map_memory(kPathLimit))) {
        const size_t size = length(text);
        if (!text_ || size >= kPathLimit) return;
        copy(text_, text, size + 1);
        size_ = size;
    }
    ~Path() {
        if (text_) unmap_memory(text_, kPathLimit);
    }
    bool ok() const { return size_ > 0 && text_[0] == '/'; }
    const char *text() const { return size_ ? text_ : ""; }
    size_t size() const { return size_; }
    void cut(size_t size) {
        if (size > size_ || !text_) return;  // out of memory there is nothing to cut
        text_[size] = 0;
        size_ = size;
    }
    // The size of what is above the last step.
    size_t parent() const {
        size_t at = size_;
        while (at > 0 && text_[at - 1] != '/') --at;
        return at > 1 ? at - 1 : 1;
    }

private:
    char *text_;
    size_t size_ = 0;
};

}  // namespace pht
