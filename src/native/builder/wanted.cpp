#include "builder/wanted.h"

namespace pht {

bool WantedList::add(Str path, u64 bias, const sys::FileIdentity &file, bool whole,
                     bool disk_only) {
    const Item item = {text_.size(), bias,          file, whole,
                       disk_only,    pages_.size(), 0,    State::waiting};
    return text_.append(path.data, path.size) && text_.push('\0') && items_.push(item);
}

void WantedList::clear() {
    items_.clear();
    text_.clear();
    pages_.clear();
}

void WantedList::leave_disk_only() {
    for (Item &item : items_)
        if (item.disk_only && item.state == State::waiting) item.state = State::done;
}

void WantedList::promise_rest() {
    for (Item &item : items_)
        if (item.state == State::waiting) item.state = State::promised;
}

bool WantedList::any(State state) const {
    for (const Item &item : items_)
        if (item.state == state) return true;
    return false;
}

}  // namespace pht
