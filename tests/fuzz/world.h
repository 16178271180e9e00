// A kernel for the targets whose code asks one: a few files and directories, mappings of files, and
// a clock that stands still. Nothing here is the real one's, and nothing is allocated.
#pragma once

#include <sys/stat.h>

#include <array>
#include <string_view>

#include "kernel/types.h"

namespace fuzz {

// A file that can be mapped: zeros and two pieces, the second over the first.
struct Sparse {
    struct Span {
        uint64_t start, end;
    };
    struct Piece {
        uint64_t at;
        std::string_view bytes;
    };
    uint64_t size = 0;
    std::array<Piece, 2> pieces = {};
    // What is said to be written, sorted and apart; the rest is a hole.
    std::array<Span, 16> written = {};
    size_t written_count = 0;

    void read(char *to, uint64_t size, uint64_t offset) const;
};

// Texts are whoever's who adds the file, for as long as the input is tried.
struct Node {
    std::string_view name = {}, data = {};
    uint32_t mode = S_IFREG | 0644, owner = 0;
    uint64_t inode = 7, mtime = 0, ctime = 0;
    const Sparse *sparse = nullptr;  // in place of the data
    int error = 0;                   // what opening it answers
};

// A stretch of a file, or of nothing (without one), where a mapping may be made.
struct Mapped {
    uint64_t start, end;  // nothing: the place is free
    const Sparse *file;
    uint64_t offset;
    bool executable;
};

struct World {
    std::array<Node, 48> nodes = {};
    size_t node_count = 0;
    size_t step = ~size_t{0};      // the most that one read(2) gives
    unsigned fail_after = 0;       // calls that go well before all reading fails; 0: none does
    uint64_t file_system = 0;      // what statfs(2) names
    uint64_t now = 1'700'000'000;  // seconds
    int seccomp = 0;
    int node = -1;         // what move_pages(2) says of each page; -1: it is not there at all
    bool aligned = false;  // files are mapped at 2 MiB boundaries
    std::array<Mapped, 4> mapped = {};

    // In place of what had that name.
    Node &add(std::string_view name, std::string_view data);
    Node &add_directory(std::string_view name);
    // Descriptors that the code has open.
    size_t open_count() const;
    // What is mapped at all, and what of it begins there.
    size_t mapped_count() const;
    const Mapped *find_mapped(uint64_t start) const;
};

// The one that simulated() asks; `fresh()` empties it.
extern World world;
void fresh();

}  // namespace fuzz
