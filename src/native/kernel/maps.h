// Reading /proc/PID/maps and /proc/PID/smaps of any size; see proc_pid_maps(5).
#pragma once

#include "kernel/lines.h"

namespace pht {

struct Mapping {
    u64 start, end, offset, inode;
    u32 dev_major, dev_minor;
    bool readable, writable, executable, shared;
    Str path;              // as the kernel prints it; valid during the visit only
    bool escaped = false;  // and with \012 for a newline; see unescape()
};

// Replaces \012 by the newline it stands for, in place; returns the new size. The kernel escapes
// nothing else, so a name that holds these four characters looks the same: it is the rarer.
size_t unescape(char *path, size_t size);

bool parse_mapping(Str line, Mapping *out);

// Calls visit(const Mapping &) for every mapping of this process until it returns false.
template <class Visit> ErrorOr<void> each_mapping(Visit visit) {
    bool whole = true;
    const auto read = each_line("/proc/self/maps", [&](Str line) {
        Mapping mapping;
        whole = parse_mapping(line, &mapping);
        return whole && visit(mapping);
    });
    if (!whole) return Error{EINVAL};
    return read;
}

// The same for the mappings that touch [start, end) only, asked for one by one (PROCMAP_QUERY,
// Linux 6.11): a process with a thousand mappings pays for the few that matter.
class MapsQuery : NonCopyable {
public:
    // Without `names`, every path is empty: half the price.
    explicit MapsQuery(bool names) : names_(names) {}
    ~MapsQuery() {
        if (ready_ && fd_.ok()) sys::close(fd_.value());
    }

    // ENOTTY where the kernel cannot.
    template <class Visit> ErrorOr<void> each(u64 start, u64 end, Visit visit) {
        while (start < end) {
            Mapping mapping;
            const auto found = next(start, &mapping);
            if (found.error() == ENOENT) return {};
            if (!found.ok()) return found;
            if (mapping.start >= end) return {};
            if (!visit(mapping)) return {};
            start = mapping.end;
        }
        return {};
    }

private:
    // The mapping that covers `address`, or the next one behind it.
    ErrorOr<void> next(u64 address, Mapping *out);

    static constexpr size_t kName = 4096;
    // Opened when it is first asked.
    bool ready_ = false;
    ErrorOr<int> fd_;
    Room<0> room_;
    char *name_ = nullptr;
    const bool names_;
};

}  // namespace pht
