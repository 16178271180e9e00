#include "builder/wanted.h"

namespace pht {

bool WantedList::add(Str path, const Wanted &wanted, bool disk_only) {
    const Item item = {wanted, text_.size(), pages_.size(), disk_only, State::waiting};
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
