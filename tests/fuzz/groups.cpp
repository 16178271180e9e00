// What control groups say of memory: any text in their files.

#include "limits/groups.h"

#include "check.h"
#include "world.h"

using pht::u64;
using pht::u8;

namespace {

constexpr std::string_view kNames[] = {
    "/memory.max",  "/memory.high",           "/memory.current",
    "/memory.stat", "/memory.limit_in_bytes", "/memory.usage_in_bytes",
};

// Of the world's files, for as long as it is asked.
class Names {
public:
    std::string_view join(std::string_view a, std::string_view b) {
        char *const to = text_ + size_;
        CHECK(a.size() + b.size() <= sizeof text_ - size_);
        memcpy(to, a.data(), a.size());
        memcpy(to + a.size(), b.data(), b.size());
        size_ += a.size() + b.size();
        return {to, a.size() + b.size()};
    }

private:
    char text_[4096];
    size_t size_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    fuzz::fresh();
    fuzz::Input input(data, size);
    const u8 kind = input.number();
    fuzz::world.step = kind & 1 ? 1 + input.number() : ~size_t{0};
    fuzz::world.fail_after = kind & 2 ? 1 + input.number() : 0;
    fuzz::world.file_system = kind & 4 ? CGROUP2_SUPER_MAGIC : 0;
    const std::string_view top = kind & 8 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
    for (const std::string_view name :
         {std::string_view("/"), std::string_view("/sys/fs/cgroup"), top})
        fuzz::world.add_directory(name);
    // Up to four groups, one in the other, and what their files have.
    Names names;
    std::string_view group = top;
    for (int level = input.number() % 4; level >= 0; --level) {
        const u8 files = input.number();
        for (size_t i = 0; i < std::size(kNames); ++i) {
            if (!(files >> i & 1)) continue;
            fuzz::Node &node =
                fuzz::world.add(names.join(group, kNames[i]), input.bytes(input.number()));
            if (files == 0xff) node.error = EACCES;
        }
        if (!level) break;
        group = names.join(group, level & 1 ? "/a" : "/docker-1");
        fuzz::world.add_directory(group);
    }
    fuzz::world.add("/proc/self/cgroup", input.rest());
    fuzz::world.add("/proc/self/statm", "1000 900 800 10 0 700 0\n");
    fuzz::world.add("/proc/meminfo", "MemTotal:        8128000 kB\nMemFree: 1 kB\n");

    pht::MemoryRoom room;
    int stat = -1;
    pht::memory_room(&room, &stat);
    CHECK(room.free <= room.limit && (room.limit == ~0ull || room.together <= room.limit / 8));
    CHECK(room.version >= 0 && room.version <= 2);
    CHECK(strnlen(room.group.data, sizeof room.group.data) == room.group.size);
    CHECK(fuzz::world.open_count() == (stat >= 0 ? 1u : 0u));
    if (stat >= 0) pht::sys::close(stat);
    for (const u64 own : {u64{0}, u64{64} << 20, ~u64{0}}) {
        const u64 allowed = pht::private_allowance(room, pht::Backing::memfd, 64 << 20, own);
        CHECK(allowed <= 64 << 20 && (room.known.ok() || allowed == 0));
        CHECK(allowed <= room.together);
    }
    CHECK(pht::shared_allowance(room, 512 << 20, 1 << 20) <= 512 << 20);
    {
        pht::MemoryTurn turn;
        const pht::Outcome taken =
            turn.take_private(pht::Backing::thp, pht::kHugeSize, ~0ull >> 1, 0);
        CHECK(room.known.ok() || !taken.ok() || fuzz::world.fail_after);
    }
    CHECK(fuzz::world.open_count() == 0);
    return 0;
}
