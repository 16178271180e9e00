// What a machine does with huge pages, asked and timed, for `pyhugetext doctor`.

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "module/binding.h"

namespace py = pybind11;

namespace pht::binding {

namespace {

constexpr u64 kLine = 64;

struct Memory {
    unsigned char *data;
    u64 size;
};

Memory writable(const py::buffer &buffer) {
    const py::buffer_info info = buffer.request(true);
    return {static_cast<unsigned char *>(info.ptr), static_cast<u64>(info.size * info.itemsize)};
}

// Where cell i lies. Cells that are a page apart sit in different cache lines of it, or they would
// all compete for the same few sets of the cache.
u64 place(u64 i, u64 stride) {
    const u64 line = stride < kPageSize ? 0 : i * 0x9E3779B97F4A7C15ull >> 58;
    return i * stride + line * kLine;
}

u64 cells_in(const Memory &memory, u64 stride) {
    if (stride == 0 || stride % kLine || (stride > kLine && stride % kPageSize))
        throw py::value_error("stride: 64, or a multiple of 4096");
    const u64 cells = memory.size / stride;
    if (cells < 2) throw py::value_error("memory: too small for two cells");
    return cells;
}

// Where a buffer lies, for /proc/self/smaps.
u64 address_of(const py::buffer &buffer) {
    return reinterpret_cast<u64>(writable(buffer).data);
}

// Links the cells of the memory to one ring in random order, the same each time (Sattolo).
void link_cells(const py::buffer &buffer, u64 stride) {
    const Memory memory = writable(buffer);
    const u64 cells = cells_in(memory, stride);
    const py::gil_scoped_release released;
    std::vector<u64> order(cells);
    std::iota(order.begin(), order.end(), 0);
    u64 state = 88172645463325252ull;
    for (u64 i = cells - 1; i > 0; --i) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::swap(order[i], order[state % i]);
    }
    for (u64 i = 0; i < cells; ++i) {
        const u64 next = place(order[(i + 1) % cells], stride);
        *reinterpret_cast<u64 *>(memory.data + place(order[i], stride)) = next;
    }
}

// Follows a ring that link_cells made, so many steps unmeasured, then again as many; nanoseconds
// of CPU time. Each step waits for the one before it, so nothing hides a page walk.
u64 chase_cells(const py::buffer &buffer, u64 steps) {
    const Memory memory = writable(buffer);
    const py::gil_scoped_release released;
    u64 at = 0;
    const auto run = [&] {
        for (u64 i = 0; i < steps; ++i) {
            at = *reinterpret_cast<const volatile u64 *>(memory.data + at);
            // Another thread may have written there.
            if (at > memory.size - sizeof(u64)) at = 0;
        }
    };
    const auto now = [] {
        timespec time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return static_cast<u64>(time.tv_sec) * 1'000'000'000 + static_cast<u64>(time.tv_nsec);
    };
    run();
    const u64 began = now();
    run();
    return now() - began;
}

// prctl(2) with an option that asks and takes no argument; -1 where the kernel does not know it.
// Not by <sys/prctl.h>, which in musl defines what the kernel's header does.
int ask_prctl(int option) {
    return static_cast<int>(syscall(SYS_prctl, option, 0L, 0L, 0L, 0L));
}

// The type of the file system that a path is on, as in statfs(2).
long filesystem(const std::string &path) {
    struct statfs info;
    if (statfs(path.c_str(), &info) < 0) throw_errno(errno);
    return static_cast<long>(info.f_type);
}

// Counts an event in the calling thread, and in what it starts from now on; with `commands` only in
// its next child, from execve(2) on. The descriptor; read(2) gives the count and the nanoseconds
// that it was wanted and that it ran. OSError; see perf_event_open(2).
int open_counter(unsigned type, u64 config, bool commands) {
    perf_event_attr attributes = {};
    attributes.size = PERF_ATTR_SIZE_VER5;  // what every kernel since 4.1 takes
    attributes.type = type;
    attributes.config = config;
    attributes.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
    attributes.inherit = 1;
    attributes.exclude_kernel = 1;
    attributes.exclude_hv = 1;
    attributes.disabled = commands;
    attributes.enable_on_exec = commands;
    const long fd = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0) throw_errno(errno);
    return static_cast<int>(fd);
}

}  // namespace

void bind_machine(py::module_ &module) {
    module.def("address_of", &address_of, py::arg("memory"));
    module.def("link_cells", &link_cells, py::arg("memory"), py::arg("stride"));
    module.def("chase_cells", &chase_cells, py::arg("memory"), py::arg("steps"));
    module.def("ask_prctl", &ask_prctl, py::arg("option"));
    module.def("filesystem", &filesystem, py::arg("path"));
    module.def("open_counter", &open_counter, py::arg("type"), py::arg("config"),
               py::arg("commands"));
}

}  // namespace pht::binding
