// What the kernel says of mappings: any text in the place of /proc/self/maps, smaps and status.

#include "check.h"
#include "kernel/filters.h"
#include "kernel/smaps.h"
#include "world.h"

#include <vector>

using pht::Mapping;
using pht::Str;
using pht::u16;
using pht::u64;
using pht::u8;

namespace {

// As the kernel prints it; see show_map_vma() of its fs/proc/task_mmu.c.
class Printer {
public:
    explicit Printer(const Mapping &mapping) {
        number(mapping.start, 16, 8);
        put('-');
        number(mapping.end, 16, 8);
        for (const char c : {' ', mapping.readable ? 'r' : '-', mapping.writable ? 'w' : '-',
                             mapping.executable ? 'x' : '-', mapping.shared ? 's' : 'p', ' '})
            put(c);
        number(mapping.offset, 16, 8);
        put(' ');
        number(mapping.dev_major, 16, 2);
        put(':');
        number(mapping.dev_minor, 16, 2);
        put(' ');
        number(mapping.inode, 10, 1);
        put(' ');
        CHECK(mapping.path.size <= sizeof text_ - size_);
        memcpy(text_ + size_, mapping.path.data, mapping.path.size);
        size_ += mapping.path.size;
    }
    std::string_view text() const { return {text_, size_}; }

private:
    void put(char c) { text_[size_++] = c; }
    void number(u64 value, unsigned base, size_t width) {
        char digits[20];
        size_t at = sizeof digits;
        for (; value || sizeof digits - at < width; value /= base)
            digits[--at] = "0123456789abcdef"[value % base];
        while (at < sizeof digits) put(digits[at++]);
    }
    char text_[4096];  // longer than any input
    size_t size_ = 0;
};

bool is_same(const Mapping &a, const Mapping &b) {
    return a.start == b.start && a.end == b.end && a.offset == b.offset && a.inode == b.inode &&
           a.dev_major == b.dev_major && a.dev_minor == b.dev_minor && a.readable == b.readable &&
           a.writable == b.writable && a.executable == b.executable && a.shared == b.shared &&
           pht::equal(a.path, b.path);
}

void check_line(std::string_view text) {
    fuzz::Exact line(text);
    Mapping mapping = {};
    if (!pht::parse_mapping({line.data(), line.size()}, &mapping)) return;
    CHECK(mapping.start < mapping.end);
    CHECK(mapping.start % pht::kPageSize == 0 && mapping.end % pht::kPageSize == 0);
    CHECK(mapping.path.data >= line.data() &&
          mapping.path.data + mapping.path.size == line.data() + line.size());
    fuzz::Exact printed(Printer(mapping).text());
    Mapping again = {};
    CHECK(pht::parse_mapping({printed.data(), printed.size()}, &again) && is_same(mapping, again));
    fuzz::Exact path(mapping.path.data, mapping.path.size);
    CHECK(pht::unescape(path.data(), path.size()) <= path.size());
}

// Whatever is read step by step is what the whole has.
void check_lines(std::string_view text) {
    constexpr size_t kWindow = 20480;  // of each_line()
    std::vector<std::string_view> lines;
    bool long_line = false;
    for (size_t at = 0; at < text.size();) {
        const size_t end = text.find('\n', at);
        if (end == std::string_view::npos) break;
        lines.push_back(text.substr(at, end - at));
        long_line = long_line || end - at >= kWindow;
        check_line(lines.back());
        at = end + 1;
    }
    if (long_line || fuzz::world.fail_after) return;
    size_t seen = 0;
    const auto read = pht::each_line("/proc/self/maps", [&](Str line) {
        CHECK(seen < lines.size() || line.size == kWindow);
        if (line.size < kWindow) CHECK(pht::equal(line, {lines[seen].data(), lines[seen].size()}));
        ++seen;
        return true;
    });
    CHECK(read.ok() && seen >= lines.size());
}

void check_smaps(u64 start, size_t count) {
    const u64 end = start + count * pht::kHugeSize;
    u64 before = 0;
    (void)pht::each_usage(start, end, [&](const pht::Usage &usage) {
        CHECK(usage.start < end && usage.end > start && usage.start < usage.end);
        CHECK(usage.start >= before);
        before = usage.end;
    });
    fuzz::Exact marks(count), counts(count * sizeof(u16));
    if (pht::Smaps::find_modified(start, count, marks.bytes()).ok())
        for (size_t i = 0; i < count; ++i) CHECK(marks.bytes()[i] <= 1);
    if (pht::Smaps::count_present(start, count, reinterpret_cast<u16 *>(counts.data())).ok())
        for (size_t i = 0; i < count; ++i)
            CHECK(reinterpret_cast<u16 *>(counts.data())[i] <= pht::kHugeSize / pht::kPageSize);
    (void)pht::Smaps::find_huge(start, count, marks.bytes());
    (void)pht::Smaps::find_entries(start, count, marks.bytes());
    CHECK(pht::Smaps::huge_bytes(start, count * pht::kHugeSize) <= count * pht::kHugeSize);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    fuzz::Input input(data, size);
    fuzz::fresh();
    const u8 kind = input.number();
    fuzz::world.step = 64 + input.number() * 32;
    fuzz::world.fail_after = kind & 1 ? 1 + input.number() : 0;
    fuzz::world.seccomp = kind & 2 ? 2 : 0;
    fuzz::world.node = kind & 4 ? -2 : static_cast<int>(kind >> 3 & 1) - 1;
    const u64 start = pht::round_down(input.number<u64>() % (1ull << 47), pht::kHugeSize);
    const size_t count = 1 + input.number() % 16;
    const std::string_view text = input.rest();
    for (const char *name : {"/proc/self/maps", "/proc/self/smaps", "/proc/thread-self/status"})
        fuzz::world.add(name, text);
    check_lines(text);
    check_smaps(start, count);
    u64 last = 0;
    (void)pht::each_mapping([&](const Mapping &mapping) {
        CHECK(mapping.start < mapping.end);
        last = mapping.start;
        return true;
    });
    (void)pht::find_filters();
    CHECK(fuzz::world.open_count() == 0);
    return 0;
}
