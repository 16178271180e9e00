#include "builder/offsets.h"

#include "builder/sort.h"

namespace pht {

bool Offsets::make(const ElfFile &file, const MappedArray<Run> &runs, u64 bias) {
    const Load &first = file.loads()[0];
    bias_ = bias;
    in_place_ = first.offset == 0 && first.filesz() >= sizeof(Elf64_Ehdr) &&
                (first.start + bias) % kHugeSize == 0;

    MappedArray<Run> spans;
    for (const Load &load : file.loads()) {
        const Run span = {round_down(load.start, kPageSize) + bias,
                          round_up(load.file_end, kPageSize) + bias};
        if (!spans.push(span)) return false;
    }
    if (!spans.append(runs.data(), runs.size())) return false;
    sort(spans.data(), spans.size(), [](const Run &a, const Run &b) {
        return a.start != b.start ? a.start < b.start : a.end < b.end;
    });

    u64 until = 0;
    for (const Run &span : spans) {
        if (parts_.empty() || span.start > until) {
            u64 offset = end_ + (span.start - end_) % kHugeSize;
            const u64 room = round_down(first.start, kPageSize) + bias - span.start + offset;
            if (parts_.empty() && !in_place_ && room == 0) offset += kHugeSize;
            if (!parts_.push({span.start, offset})) return false;
            until = span.start;
        }
        until = max(until, span.end);
        const Part &part = parts_[parts_.size() - 1];
        end_ = until - part.start + part.offset;
    }
    return true;
}

const Offsets::Part &Offsets::find(u64 address) const {
    size_t low = 0, high = parts_.size();
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        (parts_[middle].start <= address ? low : high) = middle;
    }
    return parts_[low];
}

u64 Offsets::of_memory(u64 address) const {
    const Part &part = find(address);
    return part.offset + (address - part.start);
}

u64 Offsets::near(u64 address) const {
    if (address >= kMostAddresses) return end_;
    const Part &part = find(address + bias_);
    if (address + bias_ < part.start && part.start - (address + bias_) > part.offset) return 0;
    return min(of_memory(address + bias_), end_);
}

}  // namespace pht
